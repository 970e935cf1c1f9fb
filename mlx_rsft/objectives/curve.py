"""An objective as a curve over the probability of the demonstrated token."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives.table import Objective
from mlx_rsft.objectives.tokens import TOP, Known, TokenStats

RIVALS = 999
"""Other tokens, among which the rest of the probability is spread evenly."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the curve.

    Attributes:
        weight: The objective's weight.
        push: How hard the target's logit is pushed up, ``weight * (1 - p)``.
    """

    p: float
    weight: float
    push: float


def curve(objective: Objective, num_points: int = 20) -> list[Point]:
    """The weight and push of an objective, as at the first step of a run.

    The base and the lagged model are then the present one; the tokens of the step are
    those of the curve, one row each. Pulls towards a distribution are left out.
    """
    p = (np.arange(num_points) + 0.5) / num_points
    weights = np.array(objective.weight(stats_at(p)))
    return [
        Point(float(at), float(weight), float(weight * (1 - at)))
        for at, weight in zip(p, weights, strict=True)
    ]


def stats_at(p: np.ndarray) -> TokenStats:
    """Tokens of these probabilities, the rest of it spread evenly over the others."""
    share = (1 - p) / RIVALS
    logp = np.log(p)
    entropy = -p * logp - (1 - p) * np.log(share)
    top = p + (TOP - 1) * share
    first, other = p / top, share / top
    top_entropy = -first * np.log(first) - (TOP - 1) * other * np.log(other)
    return TokenStats(
        _array(logp),
        entropy=_array(entropy),
        collision=_array(p * p + RIVALS * share * share),
        top_entropy=_array(top_entropy),
        known=Known(
            row=mx.arange(len(p)),
            row_tokens=mx.ones((len(p),)),
            reference_logp=_array(logp),
            lagged_logp=_array(logp),
            num_rows=len(p),
        ),
    )


def _array(values: np.ndarray) -> mx.array:
    return mx.array(values.astype(np.float32))
