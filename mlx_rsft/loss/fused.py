"""Chunks of rows, each with its gradient at once; for a head that is frozen.

Shapes: N supervised positions, D width, V vocabulary.
"""

from __future__ import annotations

from functools import partial, reduce

import mlx.core as mx

from mlx_rsft import exponential, lanes
from mlx_rsft.lanes import Job
from mlx_rsft.loss import kernel
from mlx_rsft.loss.kernel import CHUNK_BYTES, chunks
from mlx_rsft.loss.sums import Head, LossSums, Recipe, Slopes
from mlx_rsft.objectives.tokens import Known


def fused(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    reference_ND: mx.array | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Slopes:
    """Chunks of rows, each with its gradient at once; for a head that is frozen.

    Memory above the inputs is a few chunks, whatever the vocabulary. To be called outside
    of what is differentiated: the slopes are a result, not a promise.
    """
    known = known or Known()
    if targets_N.size == 0:
        return Slopes(kernel.no_tokens(known), mx.zeros_like(hidden_ND))
    parts: list[LossSums] = []
    slopes: list[mx.array] = []
    for start, end in chunks(head, hidden_ND, chunk_bytes, lanes.count()):
        jobs = [
            _chunk(
                head,
                hidden_ND[share],
                targets_N[share],
                recipe,
                known.between(share.start, share.stop),
                None if reference_ND is None else reference_ND[share],
            )
            for share in kernel.shares(start, end)
        ]
        for sums, slope_ND in lanes.together(jobs):
            parts.append(sums)
            slopes.append(slope_ND)
    return Slopes(reduce(LossSums.__add__, parts), mx.concatenate(slopes))


def _chunk(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known,
    reference_ND: mx.array | None,
) -> Job[tuple[LossSums, mx.array]]:
    """Sums of some rows, and the gradient at their hidden states.

    The slope at the logits is known in closed form, and the head is linear in it.
    """
    logits_NV = head(hidden_ND)
    sums, slope_NV = yield from _logit_slope(
        logits_NV, head, targets_N, recipe, known, reference_ND
    )
    yield [slope_NV, *sums]
    slope_NV = slope_NV.astype(logits_NV.dtype)
    del logits_NV
    _, (slope_ND,) = mx.vjp(partial(_listed, head), [hidden_ND], [slope_NV])
    # Computed now, so that the next chunk's logits can have this one's memory.
    yield [slope_ND]
    return sums, slope_ND


def _listed(head: Head, hidden_ND: mx.array) -> list[mx.array]:
    return [head(hidden_ND)]


def _logit_slope(
    logits_NV: mx.array,
    head: Head,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known,
    reference_ND: mx.array | None,
) -> Job[tuple[LossSums, mx.array]]:
    """Sums, and the objective's gradient at the logits: ``G (p - onehot) + s (p - r)``."""
    rows = kernel.read(logits_NV, targets_N)
    yield rows
    stats = kernel.facts(rows, recipe.head_facts, known)
    scale_N = kernel.scale(known, rows.logp_N)
    weight_N = recipe.weight(stats) * scale_N
    objective = -(weight_N * rows.logp_N).sum()
    pulled_N = weight_N
    drawn_NV: mx.array | None = None
    for pull in recipe.pulls:
        log_r_NV = kernel.held_target(pull, head, rows.logits_NV, reference_ND)
        strength_N = kernel.pull_strength(pull, known, scale_N)
        r_NV = mx.exp(log_r_NV)
        away_NV = log_r_NV - rows.logits_NV + rows.lse_N[:, None]
        objective = objective + (strength_N * exponential.total(r_NV * away_NV)).sum()
        pulled_N = pulled_N + strength_N
        share_NV = strength_N[:, None] * r_NV
        drawn_NV = share_NV if drawn_NV is None else drawn_NV + share_NV
    slope_NV = (pulled_N / rows.total_N)[:, None] * rows.raised_NV
    if drawn_NV is not None:
        slope_NV = slope_NV - drawn_NV
    place = mx.arange(targets_N.size)
    slope_NV = slope_NV.at[place, targets_N].add(-weight_N)
    return kernel.summed(objective, stats, weight_N), slope_NV
