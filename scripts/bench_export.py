"""Exports of the demo models, held against every reader that is installed.

    python scripts/bench_export.py [--json FILE] [--only gemma]

For each kind of adapter: how far the bare model is from the adapted one, and how far
each reader is, in nats, over bundled prompts. Both models take some ten minutes on two
cores; tests/export runs a short form.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_rsft.errors import ConfigError
from mlx_rsft.export import EXPORTERS, live, verify
from mlx_rsft.export.dense import bare, log_probs
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices
from mlx_rsft.models import adapters, fitted, load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.settings import AdapterSettings, ModelSettings

import mlx.core as mx  # isort: skip, after OpenBLAS has taken its place
from mlx.utils import tree_flatten, tree_unflatten  # isort: skip

SIZES = {"demo": 0.02, "demo-gemma": 0.01}
"""Of the B factors: strong enough that a mistake shows."""
Q_V = ("self_attn.q_proj", "self_attn.v_proj")


def kinds() -> Iterator[tuple[str, AdapterSettings]]:
    """Methods, modules and blocks, each with each."""
    for method in ("lora", "dora"):
        for keys in ((), Q_V):
            for layers in ("last:6", "all"):
                modules = "q, v" if keys else "all linear"
                settings = AdapterSettings(method=method, layers=layers, keys=keys)
                yield f"{method}, {modules}, {layers}", settings


def adapted(loaded: LoadedModel, settings: AdapterSettings) -> Live:
    """The model with a strong random adapter."""
    config = adapters.attach(loaded.model, settings)
    mx.random.seed(1)
    size = SIZES[loaded.source]
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
    return Live(loaded, config, live.base_name(loaded.source))


def measured(one: Live, scratch: Path) -> Iterator[Mapping[str, Any]]:
    """Every target and reader of one adapter."""
    asked = verify.questions(one)
    with bare(one) as model:
        without = replace(asked, expected=[log_probs(model, row) for row in asked.rows])
    effect = verify.away(without, asked)
    for target in ("mlx", "peft", "gguf", "fused", "gguf-merged"):
        folder = scratch / target
        folder.mkdir()
        try:
            product = EXPORTERS[target].write(one, folder, Choices())
        except ConfigError as problem:
            yield {"target": target, "refused": problem.message}
            continue
        for reader in EXPORTERS[target].readers:
            verdict = verify.verify(one, product, asked, reader)
            yield {"target": target, "effect": effect, **verdict.as_record()}


def main() -> None:
    """Measure, print, and end with 3 where a reader differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="models whose name holds this")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for source in SIZES:
        if options.only not in source:
            continue
        loaded = load.load(ModelSettings(source=source))
        for kind, settings in kinds():
            one = adapted(loaded, settings)
            with tempfile.TemporaryDirectory() as scratch:
                for record in measured(one, Path(scratch)):
                    found.append({"model": source, "kind": kind, **record})
                    print(_line(found[-1]), flush=True)
            fitted.remove(loaded.model)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    wrong = [each for each in found if each.get("verified") is False]
    sys.exit(3 if wrong else 0)


def _line(record: Mapping[str, Any]) -> str:
    head = f"{record['model']:10}  {record['kind']:26}  {record['target']:4}"
    if "refused" in record:
        return f"{head}  refused: {record['refused']}"
    if record["verified"] is None:
        return f"{head}  {record['reader']:9}  {record['note']}"
    return (
        f"{head}  {record['reader']:9}  effect {record['effect']:6.2f}  "
        f"apart {record['max_difference']:.1e}  allowed {record['tolerance']:.0e}  "
        f"greedy {record['greedy_agreement']:.0%}"
    )


if __name__ == "__main__":
    main()
