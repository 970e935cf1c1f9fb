"""llama.cpp itself as the reader of a GGUF adapter, where ``xllamacpp`` is installed.

It runs in a process of its own, because ending a server inside ours sometimes never
returns. The base is the ``.gguf`` file that the model came from; where that is small
enough its weights are written out in float32 first, since llama.cpp rounds activations
to 8 bits wherever weights are quantised, which alone costs 0.1 to 0.3 nats.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_rsft.errors import MachineError
from mlx_rsft.export.dense import is_exact
from mlx_rsft.export.live import ROUNDS_EMBEDDING, Live
from mlx_rsft.export.product import Product
from mlx_rsft.export.reading import LIKELIEST, Limit, Row
from mlx_rsft.models import gguf_file
from mlx_rsft.models.gguf_blocks import as_floats

MOST_FLOATS = 1_000_000_000
"""A base of more weights is read as it is, not written out in float32."""
CLOSE, ROUNDED, COARSE = 0.01, 0.05, 0.5
"""Nats: between two float32 models; with activations of 16 bits, which llama.cpp's GELU
has in Gemma; with a quantised base, whose activations it rounds to 8 bits."""
PLACES = 3
"""Places of a demonstrated answer that are asked for, each by a request."""
CONTEXT = 1024
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
SERVER = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(p, 1.0) for p in sys.argv[3:]]
params.n_ctx = int(sys.argv[2])
params.n_parallel = 1
params.warmup = False
params.verbosity = 0
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
flash = xllamacpp.llama_flash_attn_type
params.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
print("address", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def missing(live: Live, product: Product) -> str:
    """Why llama.cpp cannot be asked; empty if it can."""
    del product
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp not installed"
    if live.gguf is None:
        return "needs the base model as a .gguf file; pass that as --model"
    return ""


def limit(live: Live, product: Product) -> Limit:
    """By the base that it is given, and by what mlx-lm rounds."""
    del product
    own = CLOSE if _small(live) else COARSE
    rounds = live.model_type in ROUNDS_EMBEDDING or not is_exact(live)
    return Limit(max(own, ROUNDED) if rounds else own)


def _small(live: Live) -> bool:
    assert live.gguf is not None
    tensors = gguf_file.read(live.gguf).tensors.values()
    return sum(math.prod(tensor.shape) for tensor in tensors) <= MOST_FLOATS


@contextmanager
def read(live: Live, product: Product) -> Generator[Server]:
    """A server with the base model and the adapter on it."""
    assert live.gguf is not None
    with tempfile.TemporaryDirectory() as scratch:
        base = live.gguf
        if _small(live):
            base = Path(scratch) / "base.gguf"
            write_floats(live.gguf, base, rounded=live.model_type in ROUNDS_EMBEDDING)
        server = Server(base, [product.path])
        try:
            yield server
        finally:
            server.close()


class Server:
    """A llama.cpp server with one model and its adapters."""

    def __init__(self, base: Path, adapters: Sequence[Path] = ()) -> None:
        arguments = [str(base), str(CONTEXT), *map(str, adapters)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        lines = (line.split() for line in self._process.stdout)
        found = next((line[1] for line in lines if line[:1] == ["address"]), None)
        if found is None:
            self.close()
            raise MachineError("llama.cpp does not load the adapter on its base model.")
        self._address = found
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def close(self) -> None:
        """End the process; returns when it has ended."""
        self._process.communicate()

    def likely(self, row: Row) -> Iterator[tuple[int, Mapping[int, float]]]:
        """Along its own greedy answer, or at a few places of a demonstrated one."""
        if not row.greedy:
            step = -(-(len(row.tokens) - row.start) // PLACES)
            for place in range(row.start, len(row.tokens), step):
                yield place, self._at(row.tokens[:place])
            return
        for place, seen in enumerate(self._answer(row), row.start):
            yield place, seen
            if max(seen, key=lambda token: seen[token]) != row.tokens[place]:
                return  # from here on it answers something else

    def _answer(self, row: Row) -> Iterator[dict[int, float]]:
        prompt, count = list(row.tokens[: row.start]), len(row.tokens) - row.start
        answer = self._post(
            "/completion",
            prompt=prompt,
            n_predict=count,
            n_probs=LIKELIEST,
            temperature=0,
            return_tokens=True,
        )
        found = answer.get("completion_probabilities", [])
        if len(found) == len(answer["tokens"]):
            yield from map(_top, found)
            return
        # A token that is part of a character is held back with its probabilities.
        for place in range(row.start, len(row.tokens)):
            yield self._at(row.tokens[:place])

    def _at(self, prompt: Sequence[int]) -> dict[int, float]:
        """What it finds likely next; a plain letter is forced, so nothing is held back.

        What is reported is of the untouched logits.
        """
        letter = self._post("/tokenize", content="a")["tokens"][0]
        answer = self._post(
            "/completion",
            prompt=list(prompt),
            n_predict=1,
            n_probs=LIKELIEST,
            logit_bias=[[letter, 1e4]],
            temperature=0,
        )
        return _top(answer["completion_probabilities"][0])

    def _post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            self._address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with self._opener.open(request) as answer:
            return json.load(answer)


def _top(place: Mapping[str, Any]) -> dict[int, float]:
    return {entry["id"]: entry["logprob"] for entry in place["top_logprobs"]}


def write_floats(source: Path, target: Path, *, rounded: bool = False) -> None:
    """A GGUF model with the same metadata and every weight in float32.

    Args:
        source: The model's file.
        target: The file that is made.
        rounded: Whether embeddings are to come out as if multiplied by the root of the
            width in bfloat16. The head keeps its weights, so it gets its own.
    """
    import gguf

    file = gguf_file.read(source)
    writer = gguf.GGUFWriter(target, file.need("general.architecture", str))
    for key, value in file.metadata.items():
        if key != "general.architecture":
            kinds = map(gguf.GGUFValueType, file.kinds[key])
            writer.add_key_value(key, value, *kinds)
    for name, tensor in file.tensors.items():
        writer.add_tensor(name, as_floats(tensor.data, tensor.kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
