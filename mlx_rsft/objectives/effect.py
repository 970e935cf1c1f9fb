"""What an objective would make of given tokens: whom it trains, and how fast.

The gradient on the logits of a token is ``weight * (softmax - onehot)``; its norm is
``|weight| sqrt((1 - p)^2 + C - p^2)`` with C the sum of the squared probabilities. The
optimizer divides out any common factor, so shares are what counts. N tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives.curve import stats_at
from mlx_rsft.objectives.table import Objective
from mlx_rsft.objectives.tokens import STEP, TokenStats, needed

NUM_BINS = 20
PACE = 0.1
"""A token is trained in effect if it weighs at least this; plain SFT gives it 1."""
LEARNED = 0.5
"""The probability from which greedy decoding is sure to write a token."""
POINTS = 4000


@dataclass(frozen=True, slots=True)
class Effect:
    """An objective on some tokens, at full strength.

    Attributes:
        weight: (N,) what each token weighs, the weight of its row left out.
        norm: (N,) norm of its gradient on the logits, the row's weight included.
        trained: Share of the tokens that weigh at least ``PACE``.
        ess: Effective sample size of the weights as a share of the tokens, 0 to 1.
    """

    weight: np.ndarray
    norm: np.ndarray
    trained: float
    ess: float

    def share(self, members: np.ndarray, num_groups: int) -> list[float]:
        """How the gradient is shared out among groups of tokens; sums to 1.

        Args:
            members: (N,) the group of each token.
            num_groups: How many there are.
        """
        sums = np.bincount(members, self.norm, minlength=num_groups)
        total = sums.sum()
        return (sums / total if total > 0 else sums).tolist()


def effect(objective: Objective, stats: TokenStats) -> Effect:
    """What an objective makes of tokens; a pull of its own is left out.

    Args:
        objective: At full strength, whatever its schedule.
        stats: The tokens, with ``collision`` and what the objective needs. All of them
            count as one step, and the base and the lagged model are the present one.
    """
    known = replace(stats.known, reference_logp=stats.logp, lagged_logp=stats.logp)
    weight = _numbers(objective.weight(replace(stats, known=known)))
    scale = np.ones_like(weight) if known.scale is None else _numbers(known.scale)
    p, collision = _numbers(stats.p), _numbers(needed(stats.collision))
    length = np.sqrt(np.clip(1 - 2 * p + collision, 0, None))
    scaled = weight * scale
    squares = np.square(scaled).sum() * len(scaled)
    return Effect(
        weight,
        np.abs(scaled) * length,
        float((weight >= PACE - 1e-6).mean()),  # a float32 floor of 0.1 is below 0.1
        float(scaled.sum() ** 2 / squares) if squares else 0.0,
    )


def bins(p: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """(N,) the bin of each probability, in equal bins from 0 to 1."""
    return np.minimum(np.floor(p * num_bins), num_bins - 1).astype(int)


def steps_to_learn(objective: Objective, p0: float) -> float | None:
    """Steps that lift a token from ``p0`` to ``LEARNED``, by the law of its logit.

    The unit is the step in which plain SFT would raise the logit of a hopeless token by
    1; how long it is depends on the learning rate, so ratios are what to look at. The
    logit moves by ``weight (1 - p)``, and the schedule is left out.

    Returns:
        None if the objective weighs by what else is in the step, infinity if it never
        gets there.
    """
    if STEP in objective.needs:
        return None
    if p0 >= LEARNED:
        return 0.0
    low = math.log(max(p0, 1e-12) / (1 - p0))
    logit = np.linspace(low, math.log(LEARNED / (1 - LEARNED)), POINTS)
    p = 1 / (1 + np.exp(-logit))
    stats = stats_at(p)
    base = mx.full(stats.logp.shape, float(np.log(p[0])))
    stats = replace(stats, known=replace(stats.known, reference_logp=base))
    pace = _numbers(objective.weight(stats)) * (1 - p)
    if pace.min() <= 0:
        return math.inf
    wait = 1 / pace
    return float(((wait[1:] + wait[:-1]) / 2 * np.diff(logit)).sum())


def _numbers(values: mx.array) -> np.ndarray:
    return np.array(values.astype(mx.float32)).astype(np.float64)
