"""The micro-batches that a run will be cut into, known from the lengths of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlx_rsft import lanes
from mlx_rsft.data.batching import (
    micro_batches,
    padded_width,
    steps_per_epoch,
    window,
)
from mlx_rsft.settings import Config

MOST_STEPS = 64
"""Steps of the first epoch that are looked at for the largest micro-batch."""


class RowSize(NamedTuple):
    """Tokens of a row, and how many of them are trained."""

    tokens: int
    supervised: int


class Shape(NamedTuple):
    """A micro-batch: rows of one width, and what came before it in its step."""

    rows: int
    width: int
    supervised: int
    before: int


def shortened(row: RowSize, most: int) -> RowSize:
    """The row as it is when longer ones lose their beginning."""
    return RowSize(min(row.tokens, most), min(row.supervised, most - 1))


class FirstSteps:
    """The micro-batches of the first steps, each shape with the step it is in."""

    def __init__(self, rows: Sequence[RowSize], config: Config, budget: int) -> None:
        self.shapes: dict[Shape, int] = {}
        training = config.training
        count = min(steps_per_epoch(len(rows), training.batch_size), MOST_STEPS)
        padded = 0
        for step in range(count):
            places = window(step, len(rows), training.batch_size, config.seed)
            for shape in _shapes([rows[place] for place in places], budget):
                self.shapes.setdefault(shape, step)
                padded += shape.rows * shape.width
        longest = max(rows)
        alone = Shape(1, padded_width(longest.tokens), longest.supervised, 0)
        self.shapes.setdefault(alone, 0)
        self.mean_tokens = padded / count

    def largest(self) -> set[Shape]:
        """Those that can be the one that holds the most."""
        orders = (_by_tokens, _by_pairs, _by_supervised)
        return {max(self.shapes, key=order) for order in orders}


def _by_tokens(shape: Shape) -> tuple[int, Shape]:
    return shape.rows * shape.width, shape


def _by_pairs(shape: Shape) -> tuple[int, Shape]:
    return shape.rows * shape.width**2, shape


def _by_supervised(shape: Shape) -> tuple[int, Shape]:
    return shape.supervised, shape


def _shapes(rows: Sequence[RowSize], budget: int) -> Iterator[Shape]:
    groups = micro_batches([row.tokens for row in rows], budget, lanes.count())
    for before, group in enumerate(groups):
        yield Shape(
            len(group),
            padded_width(max(rows[place].tokens for place in group)),
            sum(rows[place].supervised for place in group),
            before,
        )
