"""One pass over the logits of supervised positions, which every engine shares.

Shapes: N supervised positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx

from mlx_rsft import exponential, lanes, machine
from mlx_rsft.lanes import Job
from mlx_rsft.loss.sums import NUM_BINS, Head, LossSums
from mlx_rsft.objectives.tokens import TOP, Known, Pull, TokenStats

CHUNK_BYTES = 48 << 20
"""Budget of one chunk's float32 logits; the CPU backend holds up to six such arrays."""

CPU_ROWS = 128
"""Enough rows to keep one core busy; more would only take more memory."""
LEAST_SHARE = 64
"""Rows of a chunk that one core takes; for fewer each would read the whole head anew."""


class Rows(NamedTuple):
    """One pass over the logits of some rows, all float32: one exponential per logit.

    ``raised_NV / total_N`` is the softmax; who multiplies it by something else divides
    that instead, which saves a pass.
    """

    logits_NV: mx.array
    raised_NV: mx.array
    total_N: mx.array
    lse_N: mx.array
    logp_N: mx.array


def read(logits_NV: mx.array, targets_N: mx.array) -> Rows:
    """Probabilities, log-sum-exp and target log-probability of some logits."""
    logits_NV = exponential.wide(logits_NV)
    raised_NV, total_N1, lse_N1 = exponential.softmax(logits_NV)
    lse_N = lse_N1[:, 0]
    chosen_N = mx.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0]
    logp_N = mx.minimum(chosen_N - lse_N, 0)
    return Rows(logits_NV, raised_NV, total_N1[:, 0], lse_N, logp_N)


def facts(rows: Rows, wanted: Sequence[str], known: Known) -> TokenStats:
    """What an objective may know of the tokens, held constant."""
    logits_NV, raised_NV, total_N, lse_N, logp_N = map(mx.stop_gradient, rows)
    found: dict[str, mx.array] = {}
    if "entropy" in wanted:
        found["entropy"] = lse_N - exponential.total(raised_NV * logits_NV) / total_N
    if "collision" in wanted:
        found["collision"] = exponential.total(mx.square(raised_NV)) / mx.square(
            total_N
        )
    if "top_entropy" in wanted:
        top = mx.topk(logits_NV, min(TOP, logits_NV.shape[-1]), axis=-1)
        share = mx.softmax(top, axis=-1)
        spread = mx.logsumexp(top, axis=-1) - (share * top).sum(axis=-1)
        found["top_entropy"] = spread
    return TokenStats(logp_N, known=known, **found)


def summed(objective: mx.array, stats: TokenStats, weight_N: mx.array) -> LossSums:
    """The sums of an engine, from its objective and its per-token figures."""
    logp_N, p_N = stats.logp, stats.p
    bins = mx.minimum(mx.floor(p_N * NUM_BINS), NUM_BINS - 1)
    return LossSums(
        objective=objective,
        nll=-logp_N.sum(),
        probability=p_N.sum(),
        weight=weight_N.sum(),
        weight_squared=mx.square(weight_N).sum(),
        tokens=mx.array(float(logp_N.size)),
        histogram=(bins[:, None] == mx.arange(NUM_BINS)).sum(axis=0).astype(mx.float32),
        rows_3R=_by_row(stats.known, weight_N, p_N),
    )


def _by_row(known: Known, weight_N: mx.array, p_N: mx.array) -> mx.array:
    """(3, R) what the tokens of each row of the step add up to."""
    figures = mx.stack([weight_N, weight_N * (1 - p_N), p_N])
    if known.row is None:
        return figures[:, :0]
    return mx.zeros((3, known.num_rows)).at[:, known.row].add(figures)


def no_tokens(known: Known) -> LossSums:
    """The sums over nothing."""
    zero = mx.zeros(())
    rows = mx.zeros((3, 0 if known.row is None else known.num_rows))
    return LossSums(zero, zero, zero, zero, zero, zero, mx.zeros((NUM_BINS,)), rows)


def pull_strength(pull: Pull, known: Known, scale_N: mx.array) -> mx.array:
    """(N,) strength of a pull at each token; none where a token is trained plainly."""
    strength_N = pull.strength * known.strength * scale_N
    return strength_N if known.plain is None else mx.where(known.plain, 0, strength_N)


def scale(known: Known, like_N: mx.array) -> mx.array:
    """(N,) factor on each token's whole loss."""
    return mx.ones_like(like_N) if known.scale is None else known.scale


def held_target(
    pull: Pull, head: Head, logits_NV: mx.array, reference_ND: mx.array | None
) -> mx.array:
    """(N, V) log-probabilities that a pull draws towards, held constant."""
    base_NV = None
    if pull.needs_reference:
        assert reference_ND is not None, "the pull needs the base model's hidden states"
        base_NV = exponential.wide(head(reference_ND))
    return mx.stop_gradient(pull.target(mx.stop_gradient(logits_NV), base_NV))


def token_stats(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    wanted: Sequence[str] = (),
    known: Known | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[TokenStats, mx.array]:
    """Facts of every token without a gradient, in chunks; and the likeliest tokens (N,).

    Works for any head. The chunks are computed one after another.
    """
    known = known or Known()
    if targets_N.size == 0:
        empty = mx.zeros((0,))
        return TokenStats(empty, known=known, **dict.fromkeys(wanted, empty)), targets_N
    parts: list[TokenStats] = []
    firsts: list[mx.array] = []
    for start, end in chunks(head, hidden_ND, chunk_bytes, lanes.count()):
        jobs = [
            _seen(head, hidden_ND[share], targets_N[share], wanted)
            for share in shares(start, end)
        ]
        for stats, first_N in lanes.together(jobs):
            parts.append(stats)
            firsts.append(first_N)
    joined: dict[str, mx.array] = {
        name: mx.concatenate([getattr(part, name) for part in parts]) for name in wanted
    }
    logp_N = mx.concatenate([part.logp for part in parts])
    return TokenStats(logp_N, known=known, **joined), mx.concatenate(firsts)


def _seen(
    head: Head, hidden_ND: mx.array, targets_N: mx.array, wanted: Sequence[str]
) -> Job[tuple[TokenStats, mx.array]]:
    logits_NV = head(hidden_ND)
    stats = facts(read(logits_NV, targets_N), wanted, Known())
    first_N = mx.argmax(logits_NV, axis=-1)
    yield [stats.logp, first_N, *_asked(stats, wanted)]
    return stats, first_N


def _asked(stats: TokenStats, wanted: Sequence[str]) -> list[mx.array]:
    return [getattr(stats, name) for name in wanted]


def chunks(
    head: Head, hidden_ND: mx.array, chunk_bytes: int, at_once: int = 1
) -> list[tuple[int, int]]:
    """Ranges of rows whose float32 logits stay within the budget; at least one row.

    Where ``at_once`` shares of a range are computed at once, it may be as much longer.
    """
    num_rows = hidden_ND.shape[0]
    vocabulary = head(hidden_ND[:1]).shape[-1]  # lazy: only its shape is asked for
    size = max(1, chunk_bytes // (4 * vocabulary))
    if machine.backend() == "cpu":
        size = min(size, CPU_ROWS * at_once)
    return [(at, min(at + size, num_rows)) for at in range(0, num_rows, size)]


def shares(start: int, end: int) -> list[slice]:
    """The rows of a chunk, cut for the cores that compute it at once."""
    parts = max(1, min(lanes.count(), (end - start) // LEAST_SHARE))
    edges = [start + (end - start) * part // parts for part in range(parts + 1)]
    return [slice(*edge) for edge in pairwise(edges)]
