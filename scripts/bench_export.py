"""Exports of the demo models, held against torch with PEFT and against llama.cpp.

    OPENBLAS_NUM_THREADS=1 python scripts/bench_export.py [--json FILE] [--only gemma]

LoRA and DoRA, on all linear modules and on q and v, in the last six blocks and in all,
with random factors strong enough that a mistake shows. The logits of a PEFT adapter are
compared with PEFT's own on the same base model, and both with torch in float64; a GGUF
adapter and a merged F16 file with llama.cpp, which tells log-probabilities. A line for
each; ends with 3 where a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.export import (
    EXPORTERS,
    gaps,
    live,
    llama_cpp,
    prompts,
    torch_peft,
    verify,
)
from mlx_rsft.export.dense import bare
from mlx_rsft.export.gaps import Questions
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices
from mlx_rsft.models import adapters, fitted, load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.settings import AdapterSettings, ModelSettings

import mlx.core as mx  # isort: skip, after OpenBLAS has taken its place
from mlx.utils import tree_flatten, tree_unflatten  # isort: skip

MODELS = ("demo", "demo-gemma")
ALL, Q_V = (), ("self_attn.q_proj", "self_attn.v_proj")
SIZES = {
    (ALL, "last:6"): 0.05,
    (ALL, "all"): 0.02,
    (Q_V, "last:6"): 0.1,
    (Q_V, "all"): 0.05,
}
"""Of the B factors, such that the logits move by more than 1."""
LOGITS = 5e-4
"""PEFT's logits from ours: float32 on both sides, in other orders."""
ROWS, TOKENS = 2, 16


def kinds() -> Iterator[tuple[str, AdapterSettings, float]]:
    """Methods, modules and blocks, each with each; and how strong the factors are."""
    for method in ("lora", "dora"):
        for (keys, layers), size in SIZES.items():
            modules = "q, v" if keys else "all linear"
            settings = AdapterSettings(method=method, layers=layers, keys=keys)
            yield f"{method}, {modules}, {layers}", settings, size


def adapted(loaded: LoadedModel, settings: AdapterSettings, size: float) -> Live:
    """The model with a strong random adapter."""
    config = adapters.attach(loaded.model, settings)
    mx.random.seed(1)
    flat: Any = tree_flatten(loaded.model.trainable_parameters())
    strong = [
        (name, size * mx.random.normal(value.shape))
        for name, value in flat
        if name.endswith("lora_b")
    ]
    strong += [
        (name, value * (1 + size * mx.random.normal(value.shape)))
        for name, value in flat
        if name.endswith(".m")
    ]
    loaded.model.update(tree_unflatten(strong))
    loaded.model.eval()
    return Live(loaded, config, live.base_name(loaded.source))


class Bench:
    """One base model, as mlx, torch and llama.cpp have it in float32."""

    def __init__(self, source: str, scratch: Path) -> None:
        self.loaded = load.load(ModelSettings(source=source))
        self.scratch = scratch
        one = Live(self.loaded, {"fine_tune_type": "lora"}, live.base_name(source))
        self.base: Any = torch_peft.base(one, self.loaded.model)
        self.rounds = one.model_type in live.ROUNDS_EMBEDDING
        assert one.gguf
        self.file = scratch / "base.gguf"
        llama_cpp.write_floats(one.gguf, self.file, rounded=self.rounds)
        texts = prompts.rows(self.loaded.tokenizer)[:ROWS]
        self.rows = [replace(row, tokens=row.tokens[:TOKENS]) for row in texts]

    def measured(self, one: Live, folder: Path) -> Iterator[dict[str, Any]]:
        """Every target of one adapter: what was found, and what is allowed."""
        asked = verify.of_rows(one, self.rows)
        ours = self._logits(one)
        with bare(one):
            without = self._logits(one)
        yield {"target": "peft", "effect": _apart(ours, without)} | self._peft(
            one, folder / "peft", ours
        )
        if not one.is_dora:
            yield {"target": "gguf"} | self._gguf(one, folder / "gguf", asked)
        yield {"target": "gguf-merged f16"} | self._merged(
            one, folder / "gguf-merged", asked
        )

    def _logits(self, one: Live) -> list[NDArray[np.float32]]:
        found = [one.model(mx.array([row.tokens]))[0, :-1] for row in self.rows]
        return [np.array(logits.astype(mx.float32)) for logits in found]

    def _peft(
        self, one: Live, folder: Path, ours: list[NDArray[np.float32]]
    ) -> dict[str, Any]:
        import peft

        folder.mkdir()
        path = EXPORTERS["peft"].write(one, folder, Choices()).path
        tuned = peft.PeftModel.from_pretrained(self.base, str(path)).eval()
        reader = torch_peft.Torch(tuned)
        theirs = [reader.logits(row) for row in self.rows]
        with _in_float64(tuned):
            exact = [_logits_64(tuned, row.tokens) for row in self.rows]
        self.base = tuned.unload()
        found = _apart(ours, theirs)
        return {
            "logits": found,
            "limit": LOGITS,
            "holds": found <= LOGITS,
            "mlx_from_float64": _apart(ours, exact),
            "torch_from_float64": _apart(theirs, exact),
        }

    def _gguf(self, one: Live, folder: Path, asked: Questions) -> dict[str, Any]:
        folder.mkdir()
        path = EXPORTERS["gguf"].write(one, folder, Choices()).path
        limit = llama_cpp.ROUNDED if self.rounds else llama_cpp.CLOSE
        with contextlib.closing(llama_cpp.Server(self.file, [path])) as server:
            found = gaps.measure(server.likely, asked)
        return asdict(found) | {"limit": limit, "holds": found.largest <= limit}

    def _merged(self, one: Live, folder: Path, asked: Questions) -> dict[str, Any]:
        folder.mkdir()
        product = EXPORTERS["gguf-merged"].write(one, folder, Choices())
        verdict = verify.verify(one, product, asked, "llama.cpp-model")
        product.path.unlink()
        assert verdict.gaps
        assert verdict.limit
        limit = {"limit": verdict.limit.nats, "judged": verdict.limit.of}
        return asdict(verdict.gaps) | limit | {"holds": verdict.verified}


def _apart(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@contextlib.contextmanager
def _in_float64(model: Any) -> Generator[None]:
    """The model in float64, norms, softmax and RoPE too, which ask for float32."""
    import torch

    single, to_single = torch.float32, torch.Tensor.float
    model.double()
    torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = single, to_single
        model.float()


def _logits_64(model: Any, tokens: tuple[int, ...]) -> NDArray[np.float64]:
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, :-1].numpy()


def main() -> None:
    """Measure, print a line each, write, and end with 3 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="models whose name holds this")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for source in MODELS:
        if options.only not in source:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(source, Path(scratch))
            for record in _matrix(bench):
                found.append({"model": source, **record})
                print(_line(found[-1]), flush=True)
                if options.json:
                    options.json.write_text(json.dumps(found, indent=2) + "\n")
    missed = [each for each in found if not each["holds"]]
    print(f"{len(found)} exports, {len(missed)} over their limit")
    sys.exit(3 if missed else 0)


def _matrix(bench: Bench) -> Iterator[dict[str, Any]]:
    for kind, settings, size in kinds():
        one = adapted(bench.loaded, settings, size)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
            for record in bench.measured(one, Path(folder)):
                took = time.monotonic() - began
                yield {"kind": kind, **record, "seconds": round(took, 1)}
                began = time.monotonic()
        fitted.remove(bench.loaded.model)


def _line(record: Mapping[str, Any]) -> str:
    mark = "ok  " if record["holds"] else "OVER"
    head = f"{mark} {record['model']:10}  {record['kind']:24}  {record['target']:15}"
    if record["target"] == "peft":
        told = (
            f"logits {record['logits']:.1e}  effect {record['effect']:5.2f}  from "
            f"float64: mlx {record['mlx_from_float64']:.1e}, "
            f"torch {record['torch_from_float64']:.1e}"
        )
    else:
        told = (
            f"nats: most {record['largest']:.4f}  mean {record['mean']:.4f}  "
            f"divergence {record['divergence']:.1e}"
        )
    return f"{head}  {told}  limit {record['limit']:g}  {record['seconds']:.0f} s"


if __name__ == "__main__":
    main()
