"""Who reads whole models back: mlx-lm a folder, our loader and llama.cpp a GGUF file."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_rsft.export import llama_cpp, model_folder
from mlx_rsft.export.dense import EXACT, HALF, Dense, is_exact
from mlx_rsft.export.live import ROUNDS_EMBEDDING, Live
from mlx_rsft.export.product import Product
from mlx_rsft.export.reading import DIVERGENCE, MEAN, Limit
from mlx_rsft.models import gguf, gguf_families, gguf_file

GEMMA = 0.05
"""mlx-lm scales Gemma's embeddings by a root that it rounds to bfloat16, nats."""
OF_FILE = {
    0: Limit(0.01),
    1: Limit(0.01, MEAN),
    32: Limit(0.05, MEAN),
    7: Limit(0.02, DIVERGENCE),
}
"""By ``general.file_type``. Measured on trained and random adapters of SmolLM2-135M and
Gemma 3 270M: in float16 a mean of 0.002 to 0.004 (and 0.026 at most), in bfloat16 0.018
(0.26), in Q8_0 a divergence of 0.0006 to 0.0017."""
FEW_BITS = Limit(1.0, DIVERGENCE)
"""Q4_0 moves these small models by 0.27 and 0.65 all by itself, so that the limit finds
files that are broken; whether the adapter is still there is judged by what it lost."""


@contextmanager
def folder(live: Live, product: Product) -> Generator[Dense]:
    """A model folder as stock mlx-lm loads it."""
    from mlx_lm.utils import load_model

    del live
    model, _ = load_model(product.path)
    yield Dense(model)


def folder_limit(live: Live, product: Product) -> Limit:
    """By the type of the weights."""
    told = model_folder.read(product.path)
    if told.get("quantization"):
        return FEW_BITS
    exact = is_exact(live) and told["torch_dtype"] == "float32"
    return Limit(EXACT if exact else HALF)


def unread(live: Live, product: Product) -> str:
    """Why our own loader cannot read the file; empty if it can."""
    del live
    name = gguf_file.read(product.path).need("general.architecture", str)
    if name in gguf_families.ARCHITECTURES:
        return ""
    return f"mlx-rsft does not read GGUF files of architecture {name}"


@contextmanager
def file(live: Live, product: Product) -> Generator[Dense]:
    """A GGUF file as our own loader makes a folder of it, and mlx-lm loads that."""
    from mlx_lm.utils import load_model

    del live
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model"
        gguf.convert(product.path, made, float_type="float32")
        model, _ = load_model(made)
        yield Dense(model)


def file_limit(live: Live, product: Product) -> Limit:
    """By the type of the file's matrices, and by what mlx-lm rounds."""
    kind = gguf_file.read(product.path).get("general.file_type", 0)
    limit = OF_FILE.get(kind, FEW_BITS)
    rounds = live.model_type in ROUNDS_EMBEDDING or not is_exact(live)
    least = GEMMA if rounds and limit.of != DIVERGENCE else 0.0
    return limit._replace(nats=max(limit.nats, least))


def no_llama_cpp(live: Live, product: Product) -> str:
    """Why llama.cpp cannot be asked; empty if it can."""
    del live, product
    missing = importlib.util.find_spec("xllamacpp") is None
    return "xllamacpp not installed" if missing else ""


@contextmanager
def served(live: Live, product: Product) -> Generator[llama_cpp.Server]:
    """llama.cpp with the file's numbers in float32 where they are few enough.

    It rounds activations to the type of the weights, which says nothing about the file.
    """
    del live
    with tempfile.TemporaryDirectory() as scratch:
        path = product.path
        tensors = gguf_file.read(path).tensors.values()
        if sum(math.prod(one.shape) for one in tensors) <= llama_cpp.MOST_FLOATS:
            path = Path(scratch) / "model.gguf"
            llama_cpp.write_floats(product.path, path)
        server = llama_cpp.Server(path)
        try:
            yield server
        finally:
            server.close()
