"""From logits of supervised positions to sums of loss, and their gradient.

Sums and counts travel; whoever has them all divides once. Shapes: N supervised
positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from mlx_rsft.objectives import TokenStats, TokenWeight

Head = Callable[[mx.array], mx.array]
"""Hidden states (N, D) to logits (N, V), soft caps and scaling included."""


class Totals(NamedTuple):
    """The sums of ``LossSums`` as plain numbers."""

    objective: float
    nll: float
    probability: float
    weight: float
    weight_squared: float
    tokens: float

    @property
    def effective_share(self) -> float:
        """Effective sample size of the weights as a share of the tokens, 0 to 1."""
        spread = self.weight_squared * self.tokens
        return self.weight * self.weight / spread if spread else 0.0


class LossSums(NamedTuple):
    """Sums over supervised tokens; each a float32 scalar, losses in nats.

    Attributes:
        objective: Weighted loss; its gradient trains.
        nll: True negative log-likelihood.
        probability: Probability of the demonstrated token.
        weight: Weight of the objective.
        weight_squared: Its square.
        tokens: How many tokens were summed.
    """

    objective: mx.array
    nll: mx.array
    probability: mx.array
    weight: mx.array
    weight_squared: mx.array
    tokens: mx.array

    def __add__(self, other: tuple[mx.array, ...]) -> LossSums:  # type: ignore[override]
        return LossSums(*(a + b for a, b in zip(self, other, strict=True)))

    def totals(self) -> Totals:
        """The sums as numbers; waits for them to be computed."""
        return Totals(*(number(value) for value in self))


def number(scalar: mx.array) -> float:
    """A real scalar as a Python number; waits for it to be computed."""
    value = scalar.item()
    assert not isinstance(value, complex)
    return float(value)


def log_probability(logits_NV: mx.array, targets_N: mx.array) -> mx.array:
    """Log-probability of each target, (N,) nats; float32 whatever the logits are."""
    wide = logits_NV.astype(mx.float32)
    chosen = mx.take_along_axis(wide, targets_N[:, None], axis=-1)[:, 0]
    return chosen - mx.logsumexp(wide, axis=-1)


def dense(
    head: Head, hidden_ND: mx.array, targets_N: mx.array, weigh: TokenWeight
) -> LossSums:
    """The plain engine: all logits at once. The oracle for every other one.

    With N = 0 all sums are 0 and so is the gradient.
    """
    if targets_N.size == 0:
        zero = mx.zeros(())
        return LossSums(hidden_ND.astype(mx.float32).sum() * 0, *([zero] * 5))
    logp = log_probability(head(hidden_ND), targets_N)
    held = mx.stop_gradient(logp)
    weight = mx.stop_gradient(weigh(TokenStats(held)))
    return LossSums(
        objective=-(weight * logp).sum(),
        nll=-held.sum(),
        probability=mx.exp(held).sum(),
        weight=weight.sum(),
        weight_squared=(weight * weight).sum(),
        tokens=mx.array(float(targets_N.size)),
    )
