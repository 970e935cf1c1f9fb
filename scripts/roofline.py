"""How near an optimizer step comes to this machine's rate of matrix products.

    ./scripts/roofline            # the demo model, all blocks, every position learned
    ./scripts/roofline --short    # a tiny model: does everything run?

The limit is the time that the step's matrix products would take at the rate this machine
reaches on products of just these shapes; attention is counted at the mean of those rates.
Counted are the forward pass of all blocks and the head, the gradients of activations, and
the adapters with their gradients; not counted is what a row's padding costs. Parts are
timed one by one, each forced to its end, so they need not add up to the whole.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_cost
import bench_work

from mlx_rsft import (  # before mlx.core: a fast BLAS under it
    lanes,
    loss,
    machine,
    shards,
)
from mlx_rsft.data.conversation import Example
from mlx_rsft.loss import Recipe
from mlx_rsft.models import load
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.training.gradient import Piece, gradient
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Silent

# isort: split
import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

SCENARIO = "b"
REPEATS, REPEATS_SHORT = 3, 1
LONGEST = 2048
Shape = tuple[int, int]


def main() -> None:
    """Measure, print a line per figure, and one JSON document with --json."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--short", action="store_true", help="tiny model and rows")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    options = parser.parse_args()
    work = bench_work.SCENARIOS[SCENARIO]
    work = work.as_short() if options.short else work
    with tempfile.TemporaryDirectory() as scratch:
        stepper, rows = prepared(work, Path(scratch))
    step = rows[: work.batch_size]
    found = measured(stepper, step, REPEATS_SHORT if options.short else REPEATS)
    found["machine"] = machine.device().as_record()
    print(json.dumps(found, indent=2) if options.json else as_text(found))


def prepared(work: bench_work.Scenario, scratch: Path) -> tuple[Stepper, list[Example]]:
    """The model with its adapter, and all rows."""
    folder = bench_work.model_folder(work.model, scratch)
    job: bench_cost.Job = {
        "model": str(folder),
        "data": str(scratch / "data"),
        "max_length": LONGEST,
        "objectives": ["sft"],
        "layers": work.layers,
        "epochs": 1,
        "batch_size": work.batch_size,
        "checkpoint": False,
    }
    config = bench_cost.settings(job).config
    config = replace(config, optimizer=replace(config.optimizer, clip_norm=1.0))
    loaded = load.load(config.model)
    bench_work.write_rows(work, loaded.tokenizer, scratch / "data")
    rows = assemble.splits(
        assemble.training_paths(config), config, loaded, Silent()
    ).rows["train"]
    split = SplitModel(loaded.model)
    assemble.fresh_adapter(loaded, config)
    stepper = assemble.stepper(split, build({"name": "sft"}), loaded, config)
    return stepper, list(rows)


def measured(stepper: Stepper, rows: list[Example], repeats: int) -> dict[str, Any]:
    """Rates, operations, the step's time and that of its parts."""
    stepper.split.model.train()
    tokens = sum(len(row.tokens) for row in rows)
    supervised = sum(row.num_supervised for row in rows)
    products = matrices(stepper.split)
    at_once = max(p.batch.tokens_BT.size for p in stepper.pieces(rows, 1.0))
    rates = {shape: rate(shape, at_once, repeats) for shape in products}
    work = operations(stepper.split, rows, products)
    limit_s = sum(
        (4.0 * (supervised if is_head else tokens)) * width * out * count / rates[shape]
        for shape, (count, is_head) in products.items()
        for width, out in [shape]
    )
    mean = statistics.mean(rates.values())
    limit_s += (work["attention"] + work["adapters"]) / mean
    step_s, busy = (
        seconds(lambda: stepper.step(rows), repeats),
        cores_busy(stepper, rows),
    )
    return {
        "rows": len(rows),
        "tokens": tokens,
        "supervised": supervised,
        "matmul_gflops": {f"{a} x {b}": rates[a, b] / 1e9 for a, b in rates},
        "operations": work,
        "limit_s": limit_s,
        "step_s": step_s,
        "cores_busy": busy,
        "share": limit_s / step_s,
        "parts_s": parts(stepper, rows, repeats),
    }


def matrices(split: SplitModel) -> dict[Shape, tuple[int, bool]]:
    """Width and outputs of every product of a token: how often, and whether the head's.

    Frozen weights only; the head is told from blocks by its shape.
    """
    found: Counter[Shape] = Counter()
    for block in split.backbone["layers"]:
        for _, module in block.named_modules():
            if isinstance(module, nn.Linear):
                out, width = module.weight.shape
                found[width, out] += 1
    states = split.hidden(mx.zeros((1, 1), mx.int32))
    head = (states.shape[-1], split.head(states[0]).shape[-1])
    made = {shape: (count, False) for shape, count in found.items()}
    return made | {head: (1, True)}


def operations(
    split: SplitModel, rows: list[Example], products: dict[Shape, tuple[int, bool]]
) -> dict[str, float]:
    """Multiplications and additions that the step cannot do without, by what for.

    A gradient of activations costs what the forward pass costs. Causal attention looks
    at half of a row on the mean, and its gradient costs twice the forward pass. An
    adapter costs its forward pass three times: the gradients of input and of weights.
    """
    tokens = sum(len(row.tokens) for row in rows)
    supervised = sum(row.num_supervised for row in rows)
    blocks = sum(a * b * n for (a, b), (n, head) in products.items() if not head)
    head = sum(a * b for (a, b), (_, is_head) in products.items() if is_head)
    width = attention_width(split)
    squares = sum(len(row.tokens) ** 2 for row in rows)
    leaves: list[tuple[str, mx.array]] = tree_flatten(  # pyright: ignore
        split.model.trainable_parameters()
    )
    factors = sum(leaf.size for _, leaf in leaves)
    return {
        "blocks forward": 2.0 * blocks * tokens,
        "blocks backward": 2.0 * blocks * tokens,
        "head": 4.0 * head * supervised,
        "attention": 3 * 2.0 * width * squares * split.num_blocks,
        "adapters": 3 * 2.0 * factors * tokens,
    }


def attention_width(split: SplitModel) -> int:
    """Of all query heads together."""
    model: Any = split.model
    args = model.args
    head = (
        getattr(args, "head_dim", None) or args.hidden_size // args.num_attention_heads
    )
    return args.num_attention_heads * head


def rate(shape: Shape, num_rows: int, repeats: int) -> float:
    """Operations per second of a product and of its gradient's, at these shapes.

    Spread over the cores, or on each a part of the rows: whichever is faster.
    """
    width, out = shape
    weight = mx.random.normal((out, width))
    forward, backward = (mx.random.normal((num_rows, n)) for n in shape)
    mx.eval(weight, forward, backward)

    def both(parts: int, part: int) -> lanes.Job[None]:
        some = slice(num_rows * part // parts, num_rows * (part + 1) // parts)
        yield [forward[some] @ weight.T, backward[some] @ weight]

    def run(parts: int) -> None:
        lanes.together([both(parts, part) for part in range(parts)])

    least = min(seconds(partial(run, parts), repeats) for parts in {1, lanes.count()})
    return 4.0 * num_rows * width * out / least


def parts(stepper: Stepper, rows: list[Example], repeats: int) -> dict[str, float]:
    """Seconds of each part of a step, alone; the backward pass is what is left."""
    split, pieces = stepper.split, stepper.pieces(rows, 1.0)
    hidden = [shards.supervised(split, piece.batch, piece.trunk) for piece in pieces]
    forward = seconds(lambda: _forward(split, pieces), repeats)
    head = seconds(lambda: _head(stepper, pieces, hidden), repeats)
    passes, recipe = Passes(split), _recipe(stepper)
    whole = seconds(lambda: gradient(passes, pieces, recipe), repeats)
    return {
        "data": seconds(lambda: _evaluated(stepper, rows), repeats),
        "blocks forward": forward,
        "blocks backward": whole - forward - head,
        "head and loss": head,
        "optimizer and clip": seconds(lambda: _update(stepper), repeats),
    }


def _evaluated(stepper: Stepper, rows: list[Example]) -> None:
    for piece in stepper.pieces(rows, 1.0):
        mx.eval(piece.batch.tokens_BT, piece.batch.rows_N, piece.batch.targets_N)


def _forward(split: SplitModel, pieces: list[Piece]) -> None:
    for piece in pieces:
        shards.supervised(split, piece.batch, piece.trunk)


def _recipe(stepper: Stepper) -> Recipe:
    objective = stepper.objective
    return Recipe(objective.weight, objective.head_facts, objective.pulls)


def _head(stepper: Stepper, pieces: list[Piece], hidden: list[mx.array]) -> None:
    recipe = _recipe(stepper)
    for piece, states_ND in zip(pieces, hidden, strict=True):
        targets, known = piece.batch.targets_N, piece.known
        mx.eval(loss.fused(stepper.split.head, states_ND, targets, recipe, known))


def _update(stepper: Stepper) -> None:
    """Norm, clip and update, by gradients of zero."""
    model = stepper.split.model
    grads: Any = tree_map(mx.zeros_like, model.trainable_parameters())
    norm = math.sqrt(loss.number(mx.stack(_squares(grads)).sum()))
    factor = min(1.0, stepper.clip_norm / max(norm, 1.0))

    def scaled(grad: mx.array) -> mx.array:
        return grad * factor

    stepper.optimizer.update(model, tree_map(scaled, grads))
    mx.eval(model.trainable_parameters(), stepper.optimizer.state)


def _squares(grads: Any) -> list[mx.array]:
    leaves: list[tuple[str, mx.array]] = tree_flatten(grads)  # pyright: ignore
    return [mx.square(grad).sum() for _, grad in leaves]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of several runs, after one that does not count."""
    work()
    taken: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def cores_busy(stepper: Stepper, rows: list[Example]) -> float:
    """Seconds of processor time per second of a step."""
    wall, cpu = time.perf_counter(), time.process_time()
    stepper.step(rows)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def as_text(found: dict[str, Any]) -> str:
    """The figures, a line each."""
    total = sum(found["operations"].values())
    step_s, by_part = found["step_s"], found["parts_s"]
    lines = [f"step of {found['rows']} rows, {found['tokens']:,} tokens, all learned:"]
    lines += [
        f"  matmul {shape:14} {gflops:8.1f} GFLOP/s"
        for shape, gflops in found["matmul_gflops"].items()
    ]
    lines += [
        f"  {name:21} {work / 1e9:8.1f} GFLOP  {work / total:6.1%}"
        for name, work in found["operations"].items()
    ]
    lines.append(
        f"  limit {found['limit_s']:.2f} s, step {step_s:.2f} s: "
        f"{found['share']:.0%} of the limit of matrix products reached, "
        f"{found['cores_busy']:.2f} cores busy"
    )
    rest = step_s - sum(by_part.values())
    lines += [
        f"  {name:21} {part * 1e3:8.0f} ms  {part / step_s:6.1%}"
        for name, part in {**by_part, "what is left": rest}.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
