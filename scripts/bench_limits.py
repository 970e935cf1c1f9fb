"""What a benchmark's targets ask for, held against what this machine can multiply.

    ./scripts/bench --json found.json
    .venv/bin/python scripts/bench_limits.py found.json

For each scenario of the file: the operations of matrix products that ours cannot do
without, counted low (frozen blocks once, the head and most of the last block for learned
positions alone, half of what attention compares, no padding), the time that they take at the
highest rate measured here on their shapes; the exponentials of the blocks' gates, one for each
in every forward pass, at our rate of these, all cores at work; and the time that the target
leaves: the peer's, divided by what was aimed at. Where the first two are longer, no program
that does them so fast on this machine reaches the target. Where whole processes are timed,
what ours takes to start, load and check is added, as it is and not as it could be. For
memory: the weights alone, as both sides hold them, over the peer's peak.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_report
import roofline
from bench_work import SCENARIOS, Scenario

from mlx_rsft import exponential, lanes  # before mlx.core: a fast BLAS under it
from mlx_rsft.data.conversation import Example
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trimmed import ATTENTION, PROJECTION

# isort: split
import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Counted:
    """What a whole run computes.

    Attributes:
        ours: Multiplications and additions of our matrix products.
        peer: The same of the peer's.
        gates: Exponentials of our gates.
    """

    ours: float
    peer: float
    gates: float


def main() -> None:
    """Print the limits of every scenario in a file of ``bench``."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for name, measured in found["scenarios"].items():
        print("\n".join(limits(name, SCENARIOS[name], measured)), flush=True)


def limits(name: str, work: Scenario, measured: dict[str, Any]) -> list[str]:
    """The lines of one scenario."""
    with tempfile.TemporaryDirectory() as scratch:
        stepper, rows = roofline.prepared(work, Path(scratch))
    split = stepper.split
    counted = count(split, rows, work)
    at_once = sum(len(row.tokens) for row in rows[: work.batch_size])
    rates = [
        roofline.rate(shape, at_once, REPEATS) for shape in roofline.matrices(split)
    ]
    gates = exponentials_rate(at_once, inner_width(split.backbone["layers"][0]))
    least = counted.ours / max(rates) + counted.gates / gates
    leaves: list[tuple[str, mx.array]] = tree_flatten(split.model.parameters())  # pyright: ignore
    held = sum(value.nbytes for _, value in leaves)
    lines = [
        f"({name}) {work.about}",
        f"  products: ours at least {counted.ours / 1e12:.2f} TFLOP, the peer "
        f"{counted.peer / 1e12:.2f}; best rate {max(rates) / 1e9:.0f} GFLOP/s",
        f"  gates: at least {counted.gates / 1e6:.0f} million exponentials, at "
        f"{gates / 1e6:.0f} million a second",
    ]
    for peer, pairs in measured["pairs"].items():
        lines += held_against(work, pairs, peer, least, held)
    return lines


def held_against(
    work: Scenario, pairs: list[Any], peer: str, least: float, weights: int
) -> list[str]:
    """What the targets leave, beside what cannot be avoided: seconds, and bytes."""
    whole = bool(work.arms)
    runs = [bench_report.rates(pair["peer"], whole=whole) for pair in pairs]
    theirs = statistics.median(run["seconds"] for run in runs)
    peak = statistics.median(run["peak mlx MB"] for run in runs) * 1e6
    left = theirs / work.speed
    loading = _loading(pairs) if whole else 0.0
    speed = "out of reach" if least + loading > left else "not shown out of reach"
    beside = f" and loading as it is {loading:.1f} s" if whole else ""
    memory = "out of reach" if weights / peak > work.memory else "in reach"
    return [
        f"  {peer}: {work.speed:g} times its speed leaves {left:.1f} s, products and "
        f"gates alone take {least:.1f} s{beside}, at most {theirs / (least + loading):.1f} times: "
        f"{speed}",
        f"  the weights alone are {weights / peak:.2f} of its peak, aimed at "
        f"{work.memory:g}: {memory}",
    ]


def _loading(pairs: list[Any]) -> float:
    """Seconds of our process that belong to no update."""
    return statistics.median(
        pair["ours"]["process_seconds"] - pair["ours"]["seconds"] for pair in pairs
    )


def count(split: SplitModel, rows: list[Example], work: Scenario) -> Counted:
    """The least that a run of ours multiplies, and what the peer's runs do."""
    tokens = sum(len(row.tokens) for row in rows)
    learned = sum(row.num_supervised for row in rows)
    blocks = split.backbone["layers"]
    first = 0 if work.layers == -1 else len(blocks) - work.layers
    below, above = (
        sum(map(weights, part)) for part in (blocks[:first], blocks[first:])
    )
    last = weights(blocks[-1])
    inward = weights(blocks[-1][ATTENTION]) - weights(blocks[-1][ATTENTION][PROJECTION])
    head = max(
        a * b for (a, b), (_, is_head) in roofline.matrices(split).items() if is_head
    )
    passes = work.epochs * max(1, len(work.arms))
    # Nothing below the first trained block asks for its input's gradient.
    trained = 4.0 * (above - (last - inward)) * tokens - 2.0 * inward * tokens
    trained += 4.0 * (last - inward + head) * learned
    # Scores and what they gather, for the half that is not in the future; gradients
    # cost twice that. An adapter's product is done again for its weights, and for its
    # input but in the first block. Of the last block neither is counted.
    squares = sum(len(row.tokens) ** 2 for row in rows)
    attention = 2.0 * roofline.attention_width(split) * squares
    between = blocks[first:-1]
    trained += 3 * attention * len(between)
    trained += (
        6.0 * sum(map(factors, between)) - 2.0 * factors(blocks[first])
    ) * tokens
    peer = 2.0 * (below + 2 * above + 2 * head) * tokens
    frozen = 2.0 * below * tokens + attention * first
    gates = float(tokens * inner_width(blocks[0]) * (first + passes * len(between)))
    return Counted(frozen + passes * trained, passes * peer, gates)


def inner_width(block: nn.Module) -> int:
    """How many gates a block has: the widest of its matrices' inputs."""
    return max(
        module.weight.shape[1]
        for _, module in block.named_modules()
        if isinstance(module, nn.Linear)
    )


def exponentials_rate(num_rows: int, width: int) -> float:
    """Exponentials per second, a part of the rows on each core."""
    parts = lanes.count()
    values = mx.random.normal((parts, num_rows // parts, width))
    mx.eval(values)

    def part(number: int) -> lanes.Job[None]:
        yield [exponential.exp(values[number])]

    def run() -> None:
        lanes.together([part(number) for number in range(parts)])

    return values.size / roofline.seconds(run, REPEATS)


def factors(block: nn.Module) -> int:
    """Numbers of a block that are trained, all of them an adapter's."""
    leaves: list[tuple[str, mx.array]] = tree_flatten(  # pyright: ignore
        block.trainable_parameters()
    )
    return sum(value.size for _, value in leaves)


def weights(part: nn.Module) -> int:
    """Numbers in the frozen matrices of a module."""
    return sum(
        module.weight.size
        for _, module in part.named_modules()
        if isinstance(module, nn.Linear)
    )


if __name__ == "__main__":
    main()
