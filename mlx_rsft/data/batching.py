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
"""Narrow widths are multiples of this, wide ones of a 16th of their octave."""

GROUP_TOKENS = 64
"""What a micro-batch costs beside its tokens, in tokens: weights are read anew."""

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


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Deal the rows of a step out, so that all shares are about equally much work.

    They are dealt by length, there and back again.

    Args:
        lengths: Tokens of each row.
        count: How many shares.

    Returns:
        Places in ``lengths``, ascending in each share; one share is all of them.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    dealt: list[list[int]] = [[] for _ in range(count)]
    for turn, place in enumerate(order):
        lap, seat = divmod(turn, count)
        dealt[count - 1 - seat if lap % 2 else seat].append(place)
    return [sorted(share) for share in dealt]


def micro_batches(
    lengths: Sequence[int], token_budget: int, at_once: int
) -> list[list[int]]:
    """Cut rows into groups of similar length under a budget of padded tokens.

    Of all ways to cut the rows in order of length, the cheapest: padding counts, and
    each group costs ``GROUP_TOKENS`` more. Rows that are computed at once should be
    equally many.

    Args:
        lengths: Tokens of each row.
        token_budget: Most tokens of a group, padding included. A row longer than that
            makes a group of its own.
        at_once: Into so many parts a group will be cut, as ``lanes.count`` says.

    Returns:
        Groups of places in ``lengths``, the longest row first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    widths = [padded_width(lengths[place]) for place in order]
    cost = [0] * (len(order) + 1)  # of everything from a place on
    end = [0] * len(order)  # where the group that begins at a place ends
    for begin in range(len(order) - 1, -1, -1):
        most = max(1, token_budget // widths[begin])
        ends = range(begin + 1, min(begin + most, len(order)) + 1)
        costs = [
            _longest(last - begin, at_once) * widths[begin] + cost[last]
            for last in ends
        ]
        least = min(range(len(costs)), key=costs.__getitem__)
        cost[begin], end[begin] = costs[least] + GROUP_TOKENS, ends[least]
    groups: list[list[int]] = []
    begin = 0
    while begin < len(order):
        groups.append(order[begin : end[begin]])
        begin = end[begin]
    return groups


def _longest(num_rows: int, at_once: int) -> int:
    """Rows of all parts of a group, if all were as large as its largest."""
    parts = min(num_rows, at_once)
    return parts * math.ceil(num_rows / parts)


def padded_width(num_tokens: int) -> int:
    """The width that a longest row of ``num_tokens`` is padded to.

    Widths are few, 8 to an octave at the least and 16 at the most, and none is more
    than an 8th wider than its row beyond the narrowest ones.
    """
    step = max(WIDTH_STEP, 1 << max(0, num_tokens.bit_length() - 5))
    return max(LEAST_WIDTH, math.ceil(num_tokens / step) * step)


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
        tuple(example.num_supervised for example in examples),
    )
