"""Which rows make an optimizer step, and how they are cut into batches.

Rows are shuffled globally and sorted locally: a step draws a uniformly shuffled window,
inside it rows of similar length go together. The order is a function of (seed, epoch).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_rsft.data.conversation import Batch, Example

WIDTH_STEP = 8
"""Widths are multiples of this, so that few shapes occur."""

LEAST_WIDTH = 16
"""mlx's fused attention has no gradient for 8 or fewer queries."""


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Optimizer steps that see every row once; the last may be smaller."""
    return math.ceil(num_rows / batch_size)


def window(step: int, num_rows: int, batch_size: int, seed: int) -> list[int]:
    """The rows of optimizer step ``step`` (from 0), by index."""
    epoch, place = divmod(step, steps_per_epoch(num_rows, batch_size))
    order = np.random.default_rng((seed, epoch)).permutation(num_rows)
    return order[place * batch_size : (place + 1) * batch_size].tolist()


def micro_batches(
    examples: Sequence[Example], token_budget: int
) -> list[list[Example]]:
    """Cut examples into groups of similar length under a budget of padded tokens.

    A row longer than the budget makes a group of its own.
    """
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: len(e.tokens), reverse=True):
        if groups:
            width = padded_width(len(groups[-1][0].tokens))
            if (len(groups[-1]) + 1) * width <= token_budget:
                groups[-1].append(example)
                continue
        groups.append([example])
    return groups


def padded_width(num_tokens: int) -> int:
    """The width that a longest row of ``num_tokens`` is padded to."""
    return max(LEAST_WIDTH, math.ceil(num_tokens / WIDTH_STEP) * WIDTH_STEP)


def collate(examples: Sequence[Example], width: int | None = None) -> Batch:
    """One batch of the examples, padded to ``width`` or to what they need."""
    width = width or padded_width(max(len(example.tokens) for example in examples))
    tokens_BT = np.zeros((len(examples), width), np.int32)
    rows: list[int] = []
    targets: list[int] = []
    for place, example in enumerate(examples):
        tokens_BT[place, : len(example.tokens)] = example.tokens
        for start, end in example.spans:
            rows.extend(range(place * width + start - 1, place * width + end - 1))
            targets.extend(example.tokens[start:end])
    return Batch(
        mx.array(tokens_BT),
        mx.array(rows, mx.int32),
        mx.array(targets, mx.int32),
        sum(len(example.tokens) for example in examples),
    )
