"""Stand-ins for what mlx's CPU backend is slow at inside a model: attention and gates.

The model's own ``__call__`` stays in charge; only functions that its module imports are
exchanged, while a block runs. They compute the same to float32 rounding, with fast
exponentials and in less memory: causal attention skips what lies in the future, and what
the backward pass needs again is computed again. On other backends nothing is exchanged.

Shapes: B rows, K key heads, G query heads per key head, T positions, D head width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft import exponential, machine

BLOCK = 256
"""Queries at a time."""
FUTURE = -1e30


def _gate(gate: mx.array, x: mx.array) -> mx.array:
    return gate * exponential.sigmoid(gate) * x


def _gate_slopes(gate: Any, x: Any, s: Any, g: Any) -> tuple[mx.array, mx.array]:
    return g * x * (s * (1.0 + gate * (1.0 - s))), g * (gate * s)


_slopes: Any = mx.compile(_gate_slopes)


def _with_vjp(forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    return function


def _gate_backward(primals: Any, cotangent: mx.array, output: Any) -> Any:
    del output
    gate, x = primals
    return _slopes(gate, x, exponential.sigmoid(gate), cotangent)


swiglu: Callable[[mx.array, mx.array], mx.array] = _with_vjp(_gate, _gate_backward)
"""``silu(gate) * x``; keeps nothing for the backward pass but its inputs."""


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float
) -> mx.array:
    """Causal attention of (B, K G, T, D) queries to (B, K, T, D) keys and values."""
    rows, heads, length, width = queries.shape
    groups = heads // keys.shape[1]
    grouped = (queries * scale).reshape(rows, -1, groups, length, width)
    attend = _with_vjp(_attend, _attend_backward)
    mixed, _ = attend(grouped, keys, values)
    return mixed.reshape(rows, heads, length, -1)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(at, min(at + BLOCK, length)) for at in range(0, length, BLOCK)]


def _scores(q: mx.array, keys: mx.array, start: int) -> mx.array:
    """(B, K, G, n, end) scores of a block of queries that begins at ``start``."""
    rows, heads, groups, count, width = q.shape
    end = start + count
    flat = q.reshape(rows, heads, groups * count, width)
    found = flat @ keys[:, :, :end].swapaxes(-1, -2)
    future = mx.arange(end)[None] > mx.arange(start, end)[:, None]
    barred = future.astype(q.dtype) * FUTURE
    return found.reshape(rows, heads, groups, count, end) + barred


def _attend(q: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
    """What each query gathers, and the log-sum-exp of its scores."""
    mixed: list[mx.array] = []
    sums: list[mx.array] = []
    for start, end in _blocks(q.shape[3]):
        scores = _scores(q[:, :, :, start:end], keys, start)
        top = scores.max(axis=-1, keepdims=True)
        raised = exponential.exp(scores - top)
        total = raised.sum(axis=-1, keepdims=True)
        mixed.append(raised @ values[:, :, None, :end] / total)
        sums.append(top + mx.log(total))
    return [mx.concatenate(mixed, axis=3), mx.concatenate(sums, axis=3)]


def _attend_backward(primals: Any, cotangents: Any, outputs: Any) -> Any:
    q, keys, values = primals
    mixed, sums = outputs
    slope, _ = cotangents
    drift = (slope * mixed).sum(axis=-1, keepdims=True)
    q_slopes: list[mx.array] = []
    k_slope, v_slope = mx.zeros_like(keys), mx.zeros_like(values)
    for start, end in _blocks(q.shape[3]):
        part = (slice(None), slice(None), slice(None), slice(start, end))
        share = exponential.exp(_scores(q[part], keys, start) - sums[part])
        up = slope[part]
        wanted = up @ values[:, :, None, :end].swapaxes(-1, -2)
        score_slope = share * (wanted - drift[part])
        q_slopes.append(score_slope @ keys[:, :, None, :end])
        k_slope = _added(k_slope, _over_groups(score_slope, q[part]))
        v_slope = _added(v_slope, _over_groups(share, up))
    return [mx.concatenate(q_slopes, axis=3), k_slope, v_slope]


def _over_groups(weights: mx.array, rows: mx.array) -> mx.array:
    """(B, K, end, D): the sum over groups and queries of weights times rows."""
    batch, heads, groups, count, end = weights.shape
    flat = weights.reshape(batch, heads, groups * count, end)
    return flat.swapaxes(-1, -2) @ rows.reshape(batch, heads, groups * count, -1)


def _added(total: mx.array, part: mx.array) -> mx.array:
    short = total.shape[2] - part.shape[2]
    return total + (
        mx.pad(part, [(0, 0), (0, 0), (0, short), (0, 0)]) if short else part
    )


def _attention(stock: Callable[..., mx.array], *args: Any, **options: Any) -> mx.array:
    """The model's attention where it is causal and without a cache; else as it was."""
    queries, keys, values = args[:3]
    plain = options.get("cache", args[3] if len(args) > 3 else None) is None
    if (
        plain
        and options.get("mask") == "causal"
        and options.get("sinks") is None
        and exponential.applies(queries)
        and queries.shape[2] == keys.shape[2]
    ):
        return causal_attention(queries, keys, values, options["scale"])
    return stock(*args, **options)


@contextmanager
def exchanged(model: nn.Module) -> Generator[None]:
    """Put the stand-ins into the module that the model's code lives in, for a block."""
    home: Any = sys.modules[type(model).__module__]
    if machine.backend() != "cpu":
        yield
        return
    stock: Any = getattr(home, "scaled_dot_product_attention", None)
    stand_ins = {
        "scaled_dot_product_attention": partial(_attention, stock),
        "swiglu": swiglu,
    }
    before = {name: getattr(home, name) for name in stand_ins if hasattr(home, name)}
    for name in before:
        setattr(home, name, stand_ins[name])
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(home, name, function)
