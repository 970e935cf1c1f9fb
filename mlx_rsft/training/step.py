"""One optimizer step: sums over micro-batches, one division, one update.

The division by the token count happens once for the whole step, so one batch of eight
rows and four micro-batches of two give the same update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from mlx_rsft import loss
from mlx_rsft.data.batching import collate, micro_batches
from mlx_rsft.data.conversation import Batch, Example
from mlx_rsft.loss import LossSums, Totals
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import TokenWeight


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What a step computed.

    Attributes:
        totals: Sums over its supervised tokens.
        grad_norm: Global norm of the mean gradient before clipping.
        applied: False if loss or gradient was not finite and nothing was updated.
        num_tokens: Real tokens that went through the model.
    """

    totals: Totals
    grad_norm: float
    applied: bool
    num_tokens: int


def batch_sums(split: SplitModel, batch: Batch, weigh: TokenWeight) -> LossSums:
    """Loss sums of one batch; only its supervised positions reach the head."""
    hidden_BTD = split.hidden(batch.tokens_BT)
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[batch.rows_N]
    return loss.dense(split.head, hidden_ND, batch.targets_N, weigh)


def gradient(
    split: SplitModel, batches: Sequence[Batch], weigh: TokenWeight
) -> tuple[LossSums, Any]:
    """Loss sums over all batches, and the gradient of the summed objective."""

    def summed(batch: Batch) -> LossSums:
        return batch_sums(split, batch, weigh)

    differentiate = nn.value_and_grad(split.model, summed)
    parts: list[LossSums] = []
    total: Any = None
    for batch in batches:
        sums, grads = differentiate(batch)
        parts.append(LossSums(*sums))
        total = grads if total is None else tree_map(mx.add, total, grads)
        mx.eval(parts[-1], total)
    return reduce(LossSums.__add__, parts), total


def step(
    split: SplitModel,
    examples: Sequence[Example],
    weigh: TokenWeight,
    optimizer: optim.Optimizer,
    *,
    token_budget: int,
    clip_norm: float,
) -> StepFacts:
    """Train on one window of examples; leaves the model alone if not finite."""
    batches = [collate(group) for group in micro_batches(examples, token_budget)]
    sums, grads = gradient(split, batches, weigh)
    totals = sums.totals()
    mean = _scaled(grads, 1 / max(totals.tokens, 1.0))
    norm = _global_norm(mean)
    applied = math.isfinite(norm) and math.isfinite(totals.objective)
    if applied:
        if 0 < clip_norm < norm:
            mean = _scaled(mean, clip_norm / norm)
        optimizer.update(split.model, mean)
        mx.eval(split.model.trainable_parameters(), optimizer.state)
    return StepFacts(totals, norm, applied, sum(batch.num_tokens for batch in batches))


def _scaled(grads: Any, factor: float) -> Any:
    def scale(grad: mx.array) -> mx.array:
        return grad * factor

    return tree_map(scale, grads)


def _global_norm(grads: Any) -> float:
    leaves: list[tuple[str, mx.array]] = tree_flatten(grads)  # pyright: ignore
    squares = [mx.square(grad.astype(mx.float32)).sum() for _, grad in leaves]
    return math.sqrt(loss.number(mx.stack(squares).sum()))
