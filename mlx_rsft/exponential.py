"""Exponentials that mlx's CPU backend computes many at a time, and their sums.

Its own take one number after another there, and cost more than the matrix products
around them. These are additions and multiplications, so that they run as fast as memory
delivers; they agree with mlx's to float32 rounding. On Metal and CUDA, and in other
types, they are mlx's.

It also adds one number after another, which over the 262,144 tokens of Gemma loses up to
4e-4 of a sum. In two stages, blocks and then their sums, it is 1e-6.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_rsft import machine

LOG2_E = 1.4426950408889634
ROUNDER = 12582912.0  # 1.5 * 2**23: adding and taking it away rounds to an integer
LEAST = -126.0  # the least exponent of a normal float32
# Minimax coefficients of 2**f for f in [-1/2, 1/2], the greatest error 1e-7.
C0, C1, C2, C3 = 1.0, 6.931472028550421e-1, 2.402264791363012e-1, 5.550332471162809e-2
C4, C5, C6 = 9.618437357674640e-3, 1.339887440266574e-3, 1.535336188319500e-4
FEW = 1024
"""Numbers that are added one after another: up to here that loses under 1e-6."""


def wide(values: mx.array) -> mx.array:
    """In float32 whatever they came in; float64 stays, for comparisons."""
    return values if values.dtype == mx.float64 else values.astype(mx.float32)


def applies(values: mx.array) -> bool:
    """Whether these are in charge rather than mlx's own."""
    return values.dtype == mx.float32 and machine.backend() == "cpu"


def exp(values: mx.array) -> mx.array:
    """``e ** values`` for values up to 88; has no gradient of its own on the CPU."""
    return _exp(values) if applies(values) else mx.exp(values)


def total(values: mx.array) -> mx.array:
    """The sum over the last axis."""
    blocks, rest = _blocks(values)
    whole = blocks.sum(axis=-1).sum(axis=-1)
    return whole if rest is None else whole + rest.sum(axis=-1)


def logsumexp(values: mx.array) -> mx.array:
    """The log-sum-exp over the last axis, kept as one of length 1; has a gradient."""
    top = mx.stop_gradient(values.max(axis=-1, keepdims=True))
    return top + mx.log(total(mx.exp(values - top))[..., None])


def _blocks(values: mx.array) -> tuple[mx.array, mx.array | None]:
    """The last axis ``[..., V]`` as ``[..., blocks, width]``, and what is left over.

    Widths that leave nothing over come first: there the blocks are a view, not a copy.
    """
    size = values.shape[-1]
    width = size
    if size > FEW:
        root = math.isqrt(size)
        even = (w for w in range(root, root // 8, -1) if size % w == 0)
        width = next(even, root)
    kept = size - size % width
    blocks = values[..., :kept].reshape(*values.shape[:-1], kept // width, width)
    return blocks, values[..., kept:] if kept < size else None


class Softmax(NamedTuple):
    """A softmax over the last axis, before its last division.

    Attributes:
        raised: What divided by ``total`` is the softmax.
        total: (..., 1).
        lse: (..., 1) the log-sum-exp of the values.
    """

    raised: mx.array
    total: mx.array
    lse: mx.array


def softmax(values: mx.array) -> Softmax:
    """Softmax over the last axis; has no gradient of its own on the CPU."""
    top = values.max(axis=-1, keepdims=True)
    if not applies(values):
        # One fused pass; the log-sum-exp follows from its largest entry.
        share = mx.softmax(values, axis=-1)
        lse = top - mx.log(share.max(axis=-1, keepdims=True))
        return Softmax(share, mx.ones_like(top), lse)
    rest, bits = _split_below(values, top)
    raised = _join(rest, bits.view(mx.float32))
    whole = total(raised)[..., None]
    return Softmax(raised, whole, top + mx.log(whole))


def sigmoid(values: mx.array) -> mx.array:
    """The logistic function; has no gradient of its own on the CPU."""
    if not applies(values):
        return mx.sigmoid(values)
    return _one_over_one_plus(_exp(mx.minimum(-values, 87.0)))


def _exp(values: mx.array) -> mx.array:
    rest, bits = _split(values)
    return _join(rest, bits.view(mx.float32))


# In two kernels of few operations each: mlx fuses no deeper chains.
def _split_powers(values: Any) -> tuple[mx.array, mx.array]:
    """The fraction of the binary exponent, and the bits of two to its integer."""
    power = mx.maximum(values * LOG2_E, LEAST)
    whole = (power + ROUNDER) - ROUNDER
    return power - whole, ((whole + 127.0) * 8388608.0).astype(mx.int32)


def _split_powers_below(values: Any, top: Any) -> tuple[mx.array, mx.array]:
    return _split_powers(values - top)


def _join_powers(f: Any, scale: Any) -> mx.array:
    g = f * f
    return ((C0 + C1 * f) + g * ((C2 + C3 * f) + g * ((C4 + C5 * f) + g * C6))) * scale


def _reciprocal(raised: Any) -> mx.array:
    return 1.0 / (1.0 + raised)


_split: Any = mx.compile(_split_powers)
_split_below: Any = mx.compile(_split_powers_below)
_join: Any = mx.compile(_join_powers)
_one_over_one_plus: Any = mx.compile(_reciprocal)
