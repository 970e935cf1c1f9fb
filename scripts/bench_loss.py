"""Memory and time of the loss engines, and what DFT costs over SFT.

    .venv/bin/python scripts/bench_loss.py            # the figures in README and RESULTS
    .venv/bin/python scripts/bench_loss.py --short    # the same in a few seconds

Each figure is a ratio of two things measured in turn in one process: A B A B, median of
the pairs. Memory is the peak that mlx reports above what was held before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from mlx_rsft import (
    exponential,
    loss,
    machine,
)  # before mlx.core: puts a fast BLAS under it
from mlx_rsft.loss import Recipe
from mlx_rsft.objectives import build

# isort: split
import mlx.core as mx

MEMORY_CASE = {"rows": 2048, "width": 640, "vocabulary": 262_144}
MEMORY_SHORT = {"rows": 256, "width": 64, "vocabulary": 65_536}
TIME_CASE = {"rows": 512, "width": 576, "vocabulary": 49_152}
TIME_SHORT = {"rows": 64, "width": 64, "vocabulary": 16_384}
SEED = 0


def main() -> None:
    """Measure, print a line per figure, and one JSON document with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes, few pairs")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    options = parser.parse_args()
    pairs = 3 if options.short else 7
    found: dict[str, Any] = {
        "machine": machine.device().as_record(),
        "memory": memory(**(MEMORY_SHORT if options.short else MEMORY_CASE)),
        "time": times(pairs, **(TIME_SHORT if options.short else TIME_CASE)),
        "exponentials": exponentials(pairs, 128, TIME_CASE["vocabulary"]),
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    sizes = found["memory"]
    print(f"memory, loss and gradient, {sizes['sizes']}:")
    print(f"  fused  {sizes['fused_bytes'] / 1e6:8.0f} MB above the inputs")
    print(
        f"  dense  {sizes['dense_bytes'] / 1e6:8.0f} MB above the inputs, by an eighth of the rows"
    )
    print(f"time, {found['time']['sizes']}, medians of {pairs} pairs:")
    print(f"  fused / dense      {found['time']['fused_over_dense']:.3f}")
    print(f"  dft / sft, fused   {found['time']['dft_over_sft']:.3f}")
    raised = found["exponentials"]
    print(f"exponentials, {raised['sizes']}:")
    print(f"  ours / mlx's, each          {raised['exp_over_mlx']:.3f}")
    print(f"  ours / mlx's, a softmax     {raised['softmax_over_mlx']:.3f}")


def memory(rows: int, width: int, vocabulary: int) -> dict[str, Any]:
    """Peak bytes above the inputs of loss and gradient, fused and dense.

    The dense engine is measured on an eighth of the rows and scaled, where all of them
    would need more memory than machines have.
    """
    share = 8
    some = _inputs(rows // share, width, vocabulary)
    dense = _peak(_work(loss.dense, "dft", *some)) * share
    some = _inputs(rows, width, vocabulary)
    fused = _peak(_work(loss.fused, "dft", *some))
    sizes = f"{rows} rows, width {width}, vocabulary {vocabulary}"
    return {"sizes": sizes, "fused_bytes": fused, "dense_bytes": dense}


def times(pairs: int, rows: int, width: int, vocabulary: int) -> dict[str, Any]:
    """Median ratios of paired runs."""
    inputs = _inputs(rows, width, vocabulary)
    sft = _work(loss.fused, "sft", *inputs)
    dft = _work(loss.fused, "dft", *inputs)
    dense = _work(loss.dense, "sft", *inputs)
    return {
        "sizes": f"{rows} rows, width {width}, vocabulary {vocabulary}",
        "pairs": pairs,
        "fused_over_dense": _ratio(sft, dense, pairs),
        "dft_over_sft": _ratio(dft, sft, pairs),
    }


def exponentials(pairs: int, rows: int, vocabulary: int) -> dict[str, Any]:
    """Median time ratios of our exponentials over mlx's, on logits of this shape."""
    logits = mx.random.normal((rows, vocabulary)) * 5
    mx.eval(logits)

    def work(function: Callable[[mx.array], Any]) -> Work:
        def run() -> None:
            mx.eval(function(logits))

        return run

    def softmax(values: mx.array) -> mx.array:
        return mx.softmax(values, axis=-1)

    return {
        "sizes": f"{rows} rows, vocabulary {vocabulary}",
        "exp_over_mlx": _ratio(work(exponential.exp), work(mx.exp), pairs),
        "softmax_over_mlx": _ratio(work(exponential.softmax), work(softmax), pairs),
    }


Work = Callable[[], None]


def _inputs(rows: int, width: int, vocabulary: int) -> tuple[mx.array, ...]:
    mx.random.seed(SEED)
    table = mx.random.normal((vocabulary, width)) * 0.05
    hidden = mx.random.normal((rows, width))
    targets = mx.random.randint(0, vocabulary, (rows,))
    mx.eval(table, hidden, targets)
    return table, hidden, targets


def _work(
    engine: Any, name: str, table: mx.array, hidden: mx.array, targets: mx.array
) -> Work:
    objective = build({"name": name})
    recipe = Recipe(objective.weight, objective.head_facts, objective.pulls)

    def head(rows: mx.array) -> mx.array:
        return rows @ table.T

    def run() -> None:
        mx.eval(engine(head, hidden, targets, recipe))

    return run


def _peak(work: Work) -> int:
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    work()
    return mx.get_peak_memory() - before


def _seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _ratio(one: Work, other: Work, pairs: int) -> float:
    """Median of time ratios; which goes first alternates, so that drift cancels."""
    one()
    other()
    found: list[float] = []
    for pair in range(pairs):
        if pair % 2:
            below = _seconds(other)
            above = _seconds(one)
        else:
            above = _seconds(one)
            below = _seconds(other)
        found.append(above / below)
    return statistics.median(found)


if __name__ == "__main__":
    main()
