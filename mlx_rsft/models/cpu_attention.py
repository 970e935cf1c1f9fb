"""Causal attention for mlx's CPU backend, with a backward pass of its own.

It skips what lies in the future, takes few queries or short rows at a time, so that
their scores stay in the processor's cache, and computes the scores again for the
backward pass rather than keep them.

Shapes: B rows, K key heads, G query heads per key head, T positions, D head width, n
queries at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlx_rsft import exponential

SCORE_BYTES, LEAST_BLOCK = 2 << 20, 32
"""What the scores of the queries at a time may take; and how many these are at least."""
ROW_BYTES = 8 << 20
"""What the scores of whole rows at a time may take."""
FUTURE = -1e30

Step = Callable[..., Any]


def with_backward(forward: Step, backward: Step) -> Any:
    """A function that keeps its inputs alone for the backward pass."""
    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    return function


def anew(primals: Any, cotangent: mx.array) -> list[mx.array]:
    """The inputs, to compute with anew; else mlx would keep what is computed alike."""
    return mx.depends(list(primals), [cotangent])


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float
) -> mx.array:
    """Causal attention of (B, K G, T, D) queries to (B, K, T, D) keys and values."""
    rows, heads, length, width = queries.shape
    groups = heads // keys.shape[1]
    grouped = (queries * scale).reshape(rows, -1, groups, length, width)
    mixed, _ = attend(grouped, keys, values)
    return mixed.reshape(rows, heads, length, -1)


def _portions(q: mx.array) -> list[tuple[slice, list[tuple[int, int]]]]:
    """Rows at a time, and for these the ranges of queries that are scored at a time.

    Many short rows at once, so that they are few calls; of a long row so few queries
    that their scores stay in the processor's cache.
    """
    rows, heads, groups, length, _ = q.shape
    query_bytes = 4 * heads * groups * length
    at_once = max(1, ROW_BYTES // (query_bytes * length))
    size = max(LEAST_BLOCK, SCORE_BYTES // query_bytes) if at_once == 1 else length
    blocks = [(at, min(at + size, length)) for at in range(0, length, size)]
    return [(slice(at, at + at_once), blocks) for at in range(0, rows, at_once)]


def _scores(q: mx.array, keys: mx.array, start: int) -> mx.array:
    """(B, K, G, n, end) scores of a block of queries that begins at ``start``."""
    count = q.shape[3]
    end = start + count
    found = _flat(q) @ keys[:, :, :end].swapaxes(-1, -2)
    future = mx.arange(end)[None] > mx.arange(start, end)[:, None]
    barred = future.astype(q.dtype) * FUTURE
    return _like(found, q) + barred


def _flat(x: mx.array) -> mx.array:
    """(B, K, G n, D): groups share their keys, so they are one product."""
    rows, heads, groups, count, width = x.shape
    return x.reshape(rows, heads, groups * count, width)


def _like(flat: mx.array, q: mx.array) -> mx.array:
    return flat.reshape(*q.shape[:-1], flat.shape[-1])


def _attend_forward(q: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
    """What each query gathers, and the log-sum-exp of its scores."""
    mixed: list[mx.array] = []
    sums: list[mx.array] = []
    for rows, blocks in _portions(q):
        parts = [
            _attend_block(q[rows, :, :, start:end], keys[rows], values[rows], start)
            for start, end in blocks
        ]
        mixed.append(_joined([part for part, _ in parts], axis=3))
        sums.append(_joined([part for _, part in parts], axis=3))
    return [_joined(mixed), _joined(sums)]


def _joined(parts: list[mx.array], axis: int = 0) -> mx.array:
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=axis)


def _attend_block(
    q: mx.array, keys: mx.array, values: mx.array, start: int
) -> tuple[mx.array, mx.array]:
    scores = _scores(q, keys, start)
    raised, total, lse = exponential.softmax(scores)
    gathered = _flat(raised) @ values[:, :, : scores.shape[-1]]
    return _like(gathered, q) / total, lse


def _attend_backward(primals: Any, cotangents: Any, outputs: Any) -> Any:
    slope, _ = cotangents
    mixed, sums = outputs
    drift = (slope * mixed).sum(axis=-1, keepdims=True)
    q, keys, values = anew(primals, slope)
    slopes = [
        _rows_backward(
            q[rows],
            keys[rows],
            values[rows],
            sums[rows],
            slope[rows],
            drift[rows],
            blocks,
        )
        for rows, blocks in _portions(q)
    ]
    return [_joined(list(parts)) for parts in zip(*slopes, strict=True)]


def _rows_backward(
    q: mx.array,
    keys: mx.array,
    values: mx.array,
    sums: mx.array,
    slope: mx.array,
    drift: mx.array,
    blocks: list[tuple[int, int]],
) -> tuple[mx.array, mx.array, mx.array]:
    """Slopes at the queries, keys and values of rows that are scored together."""
    q_slopes: list[mx.array] = []
    k_slope, v_slope = mx.zeros_like(keys), mx.zeros_like(values)
    for start, end in blocks:
        part = (slice(None), slice(None), slice(None), slice(start, end))
        share = exponential.exp(_scores(q[part], keys, start) - sums[part])
        up = slope[part]
        wanted = _like(_flat(up) @ values[:, :, :end].swapaxes(-1, -2), up)
        score_slope = share * (wanted - drift[part])
        q_slopes.append(_like(_flat(score_slope) @ keys[:, :, :end], up))
        k_slope = _added(k_slope, _flat(score_slope).swapaxes(-1, -2) @ _flat(q[part]))
        v_slope = _added(v_slope, _flat(share).swapaxes(-1, -2) @ _flat(up))
    return _joined(q_slopes, axis=3), k_slope, v_slope


attend: Step = with_backward(_attend_forward, _attend_backward)


def _added(total: mx.array, part: mx.array) -> mx.array:
    short = total.shape[2] - part.shape[2]
    return total + (
        mx.pad(part, [(0, 0), (0, 0), (0, short), (0, 0)]) if short else part
    )
