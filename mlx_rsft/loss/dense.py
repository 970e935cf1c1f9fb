"""All logits at once, differentiated by MLX: the oracle for the other engines."""

from __future__ import annotations

import mlx.core as mx

from mlx_rsft import exponential
from mlx_rsft.loss import kernel
from mlx_rsft.loss.sums import Head, LossSums, Recipe, Slopes
from mlx_rsft.objectives.tokens import Known


def dense(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    reference_ND: mx.array | None = None,
) -> Slopes:
    """All logits at once, differentiated by MLX: the oracle for the other engines."""

    def of_hidden(rows_ND: mx.array) -> LossSums:
        return differentiable(head, rows_ND, targets_N, recipe, known, reference_ND)

    sums, slope_ND = mx.value_and_grad(of_hidden)(hidden_ND)
    return Slopes(LossSums._make(sums), slope_ND)


def differentiable(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    reference_ND: mx.array | None = None,
) -> LossSums:
    """The sums, for MLX to differentiate; all that an objective holds is held."""
    known = known or Known()
    if targets_N.size == 0:
        through = exponential.wide(hidden_ND).sum() * 0
        return kernel.no_tokens(known)._replace(objective=through)
    logits_NV = exponential.wide(head(hidden_ND))
    lse_N = exponential.logsumexp(logits_NV)[:, 0]
    logp_N = mx.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0] - lse_N
    stats = kernel.facts(kernel.read(logits_NV, targets_N), recipe.head_facts, known)
    scale_N = kernel.scale(known, logp_N)
    weight_N = recipe.weight(stats) * scale_N  # the facts are held, so it is too
    loss_N = -weight_N * logp_N
    for pull in recipe.pulls:
        log_r_NV = kernel.held_target(pull, head, logits_NV, reference_ND)
        # r adds up to 1. Were lse inside, its gradient would be a sum in one stage.
        gap_N = exponential.total(mx.exp(log_r_NV) * (log_r_NV - logits_NV)) + lse_N
        loss_N = loss_N + kernel.pull_strength(pull, known, scale_N) * gap_N
    return kernel.summed(loss_N.sum(), stats, weight_N)
