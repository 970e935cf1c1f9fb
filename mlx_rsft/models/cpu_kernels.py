"""Stand-ins for what mlx's CPU backend is slow at inside a model: attention and gates.

The model's own ``__call__`` stays in charge; only functions that its module imports are
exchanged, while a block runs. They compute the same to float32 rounding, with fast
exponentials and in less memory: causal attention skips what lies in the future, and what
the backward pass needs again is computed again. On other backends nothing is exchanged.

Shapes: B rows, K key heads, G query heads per key head, T positions, D head width.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft import exponential, machine

SCORE_BYTES, LEAST_BLOCK = 2 << 20, 32
"""What the scores of the queries at a time may take; and how many these are at least."""
FUTURE = -1e30
HOME = "mlx_lm.models."


Step = Callable[..., Any]


def _with_backward(forward: Step, backward: Step) -> Any:
    """A function that keeps its inputs alone for the backward pass."""
    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    return function


def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return gate * exponential.sigmoid(gate) * x


def _swiglu_backward(primals: Any, cotangent: mx.array, output: Any) -> Any:
    del output
    gate, x = primals
    return _swiglu_slopes(gate, x, exponential.sigmoid(gate), cotangent)


@mx.compile
def _swiglu_slopes(gate: Any, x: Any, s: Any, g: Any) -> Any:
    return g * x * (s * (1.0 + gate * (1.0 - s))), g * (gate * s)


swiglu: Step = _with_backward(_swiglu, _swiglu_backward)
"""``silu(gate) * x``."""


def _gelu(x: mx.array) -> mx.array:
    # (1 + tanh(u)) / 2 is the logistic function at 2 u.
    return x * exponential.sigmoid(_twice_inner(x))


def _gelu_backward(primal: mx.array, cotangent: mx.array, output: Any) -> Any:
    del output
    return _gelu_slope(primal, exponential.sigmoid(_twice_inner(primal)), cotangent)


@mx.compile
def _twice_inner(x: Any) -> Any:
    return INNER * x * (1.0 + CUBIC * x * x)


@mx.compile
def _gelu_slope(x: Any, s: Any, g: Any) -> Any:
    return g * (s + x * s * (1.0 - s) * INNER * (1.0 + 3.0 * CUBIC * x * x))


INNER, CUBIC = 2.0 * math.sqrt(2.0 / math.pi), 0.044715
gelu_approx: Step = _with_backward(_gelu, _gelu_backward)
"""GELU by its approximation with a hyperbolic tangent."""


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float
) -> mx.array:
    """Causal attention of (B, K G, T, D) queries to (B, K, T, D) keys and values."""
    rows, heads, length, width = queries.shape
    groups = heads // keys.shape[1]
    grouped = (queries * scale).reshape(rows, -1, groups, length, width)
    mixed, _ = _attend(grouped, keys, values)
    return mixed.reshape(rows, heads, length, -1)


def _blocks(q: mx.array) -> list[tuple[int, int]]:
    """Ranges of queries whose scores stay in the processor's cache."""
    heads, groups, length, _ = q.shape
    size = max(LEAST_BLOCK, SCORE_BYTES // (4 * heads * groups * length))
    return [(at, min(at + size, length)) for at in range(0, length, size)]


def _scores(q: mx.array, keys: mx.array, start: int) -> mx.array:
    """(K, G, n, end) scores of a block of one row's queries that begins at ``start``."""
    heads, groups, count, width = q.shape
    end = start + count
    flat = q.reshape(heads, groups * count, width)
    found = flat @ keys[:, :end].swapaxes(-1, -2)
    future = mx.arange(end)[None] > mx.arange(start, end)[:, None]
    barred = future.astype(q.dtype) * FUTURE
    return found.reshape(heads, groups, count, end) + barred


def _attend_forward(q: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
    """What each query gathers, and the log-sum-exp of its scores."""
    mixed: list[mx.array] = []
    sums: list[mx.array] = []
    for q_row, k_row, v_row in zip(q, keys, values, strict=True):
        parts = [
            _attend_block(q_row[:, :, start:end], k_row, v_row, start)
            for start, end in _blocks(q_row)
        ]
        mixed.append(mx.concatenate([part for part, _ in parts], axis=2))
        sums.append(mx.concatenate([part for _, part in parts], axis=2))
    return [mx.stack(mixed), mx.stack(sums)]


def _attend_block(
    q: mx.array, keys: mx.array, values: mx.array, start: int
) -> tuple[mx.array, mx.array]:
    scores = _scores(q, keys, start)
    raised, total, lse = exponential.softmax(scores)
    return raised @ values[:, None, : scores.shape[-1]] / total, lse


def _attend_backward(primals: Any, cotangents: Any, outputs: Any) -> Any:
    slope, _ = cotangents
    mixed, sums = outputs
    drift = (slope * mixed).sum(axis=-1, keepdims=True)
    rows = zip(*primals, sums, slope, drift, strict=True)
    slopes = [_row_backward(*row) for row in rows]
    return [mx.stack(list(parts)) for parts in zip(*slopes, strict=True)]


def _row_backward(
    q: mx.array,
    keys: mx.array,
    values: mx.array,
    sums: mx.array,
    slope: mx.array,
    drift: mx.array,
) -> tuple[mx.array, mx.array, mx.array]:
    """Slopes at one row's queries, keys and values."""
    q_slopes: list[mx.array] = []
    k_slope, v_slope = mx.zeros_like(keys), mx.zeros_like(values)
    for start, end in _blocks(q):
        part = (slice(None), slice(None), slice(start, end))
        share = exponential.exp(_scores(q[part], keys, start) - sums[part])
        up = slope[part]
        wanted = up @ values[:, None, :end].swapaxes(-1, -2)
        score_slope = share * (wanted - drift[part])
        q_slopes.append(score_slope @ keys[:, None, :end])
        k_slope = _added(k_slope, _over_groups(score_slope, q[part]))
        v_slope = _added(v_slope, _over_groups(share, up))
    return mx.concatenate(q_slopes, axis=2), k_slope, v_slope


_attend: Step = _with_backward(_attend_forward, _attend_backward)


def _over_groups(weights: mx.array, rows: mx.array) -> mx.array:
    """(K, end, D): the sum over groups and queries of weights times rows."""
    heads, groups, count, end = weights.shape
    flat = weights.reshape(heads, groups * count, end)
    return flat.swapaxes(-1, -2) @ rows.reshape(heads, groups * count, -1)


def _added(total: mx.array, part: mx.array) -> mx.array:
    short = total.shape[1] - part.shape[1]
    return total + (mx.pad(part, [(0, 0), (0, short), (0, 0)]) if short else part)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any = None,
    scale: float = 1.0,
    mask: Any = None,
    sinks: Any = None,
) -> mx.array:
    """mlx-lm's attention; where it is plainly causal, ours."""
    plain = cache is None and sinks is None and isinstance(mask, str)
    if plain and exponential.applies(queries) and queries.shape[2] == keys.shape[2]:
        return causal_attention(queries, keys, values, scale)
    from mlx_lm.models import base

    stock: Step = base.scaled_dot_product_attention
    return stock(queries, keys, values, cache, scale, mask, sinks)


class _Layers(ModuleType):
    """``mlx.nn`` with another ``gelu_approx``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)


_layers: Any = _Layers("mlx.nn")
_layers.gelu_approx = gelu_approx


def _stand_ins() -> dict[str, tuple[Any, Any]]:
    """By the name that model modules know it by: mlx-lm's, and ours."""
    from mlx_lm.models import activations, base

    return {
        "scaled_dot_product_attention": (base.scaled_dot_product_attention, attention),
        "swiglu": (activations.swiglu, swiglu),
        "nn": (nn, _layers),
    }


@contextmanager
def exchanged(model: nn.Module) -> Generator[None]:
    """Put the stand-ins where the model's code looks for what it calls, for a block."""
    if machine.backend() != "cpu":
        yield
        return
    names = {type(part).__module__ for part in model.modules()}
    homes: list[Any] = [sys.modules[name] for name in names if name.startswith(HOME)]
    before = [
        (home, name, stock, ours)
        for name, (stock, ours) in _stand_ins().items()
        for home in homes
        if getattr(home, name, None) is stock
    ]
    for home, name, _, ours in before:
        setattr(home, name, ours)
    try:
        yield
    finally:
        for home, name, stock, _ in before:
            setattr(home, name, stock)


def _attend_outline(q: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
    """Something whose backward pass reads what that of attention reads, and no more."""
    met = q * keys[:, :, None] + mx.square(values)[:, :, None]
    return [mx.exp(met), mx.exp(met[..., :1])]


def _gather_outline(gather: Step, x: mx.array, *given: Any, **named: Any) -> mx.array:
    """A product whose backward pass reads its input; that of mlx cannot be written out."""
    product = mx.stop_gradient(gather(mx.stop_gradient(x), *given, **named))
    return product + mx.square(x).sum()


@contextmanager
def outlined() -> Generator[None]:
    """Let the stand-ins only say what they take, make and keep for the backward pass.

    For readers of mlx's graph, which cannot look into functions with a backward pass of
    their own.
    """
    shapes: dict[str, Step] = {
        "swiglu": operator.mul,
        "gelu_approx": mx.square,
        "_attend": _attend_outline,
    }
    before = {name: globals()[name] for name in shapes}
    globals().update(shapes)
    _layers.gelu_approx = shapes["gelu_approx"]
    whole: Any = mx
    gather = whole.gather_mm
    whole.gather_mm = partial(_gather_outline, gather)
    try:
        yield
    finally:
        globals().update(before)
        _layers.gelu_approx = gelu_approx
        whole.gather_mm = gather
