"""Who reads exported files back: ours, and the real ones where they are installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from mlx_rsft.export import gguf_reader, llama_cpp, merged_readers, torch_peft
from mlx_rsft.export.dense import Dense, always, bare, rounding
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Product
from mlx_rsft.export.reading import Reader
from mlx_rsft.models import adapters, stored


@contextmanager
def _mlx(live: Live, product: Product) -> Generator[Dense]:
    from mlx_lm.tuner.utils import load_adapters

    with bare(live) as model:
        load_adapters(model, str(product.path))
        yield Dense(model.eval())


@contextmanager
def _ours(live: Live, product: Product) -> Generator[Dense]:
    with bare(live) as model:
        adapters.load(model, product.path)
        yield Dense(model)


@contextmanager
def _gguf(live: Live, product: Product) -> Generator[Dense]:
    with bare(live) as model:
        found = gguf_reader.read(model, product.path)
        stored.put_on(model, found, product.path)
        yield Dense(model.eval())


READERS: dict[str, Reader] = {
    "mlx-lm": Reader("mlx-lm's own loader", always, _mlx, rounding),
    "mlx-rsft": Reader("mlx-rsft --adapter", always, _ours, rounding),
    "gguf": Reader("the file as llama.cpp reads it", always, _gguf, rounding),
    "llama.cpp": Reader(
        "llama.cpp itself",
        llama_cpp.missing,
        llama_cpp.read,
        llama_cpp.limit,
        rounded=True,
    ),
    "peft": Reader(
        "transformers and PEFT",
        torch_peft.missing,
        torch_peft.read,
        torch_peft.limit,
        rounded=True,
    ),
    "mlx-lm-model": Reader(
        "mlx-lm's own loader, of a whole model",
        always,
        merged_readers.folder,
        merged_readers.folder_limit,
    ),
    "gguf-model": Reader(
        "the file as mlx-rsft reads it",
        merged_readers.unread,
        merged_readers.file,
        merged_readers.file_limit,
    ),
    "llama.cpp-model": Reader(
        "llama.cpp itself, of a whole model",
        merged_readers.no_llama_cpp,
        merged_readers.served,
        merged_readers.file_limit,
    ),
}
