"""What an engine takes and gives: a recipe, and sums over supervised tokens.

Sums and counts travel; whoever has them all divides once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives.tokens import Pull, TokenWeight

Head = Callable[[mx.array], mx.array]
"""Hidden states (N, D) to logits (N, V), soft caps and scaling included."""

NUM_BINS = 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an engine must know of an objective.

    Attributes:
        weight: From token facts to weights; held constant by the engine.
        head_facts: What the weight wants from the head beside the log-probability.
        pulls: What draws the whole distribution, and how strongly.
    """

    weight: TokenWeight
    head_facts: tuple[str, ...] = ()
    pulls: tuple[Pull, ...] = ()

    @property
    def needs_reference(self) -> bool:
        """Whether the base model's hidden states must come along."""
        return any(pull.needs_reference for pull in self.pulls)


class Totals(NamedTuple):
    """The sums of ``LossSums`` as plain numbers."""

    objective: float
    nll: float
    probability: float
    weight: float
    weight_squared: float
    tokens: float
    histogram: tuple[int, ...]

    @property
    def effective_share(self) -> float:
        """Effective sample size of the weights as a share of the tokens, 0 to 1."""
        spread = self.weight_squared * self.tokens
        return self.weight * self.weight / spread if spread else 0.0


class LossSums(NamedTuple):
    """Sums over supervised tokens; float32 scalars, losses in nats.

    Attributes:
        objective: Weighted loss and pulls; its gradient trains.
        nll: True negative log-likelihood.
        probability: Probability of the demonstrated token.
        weight: Weight of the objective, scale included.
        weight_squared: Its square.
        tokens: How many tokens were summed.
        histogram: (20,) tokens by probability, in equal bins from 0 to 1.
        rows_3R: Weight, weight times ``1 - p``, and p, summed over the tokens of each
            row of the step; R is 0 where the rows are not known.
    """

    objective: mx.array
    nll: mx.array
    probability: mx.array
    weight: mx.array
    weight_squared: mx.array
    tokens: mx.array
    histogram: mx.array
    rows_3R: mx.array

    def __add__(self, other: tuple[mx.array, ...]) -> LossSums:  # type: ignore[override]
        return LossSums._make(a + b for a, b in zip(self, other, strict=True))

    def totals(self) -> Totals:
        """The sums as numbers; waits for them to be computed."""
        counts = np.array(self.histogram).astype(int)
        sums = [number(value) for value in self[: len(Totals._fields) - 1]]
        return Totals._make([*sums, tuple(counts.tolist())])


class Slopes(NamedTuple):
    """What an engine gives: the sums, and the gradient of their objective.

    Attributes:
        hidden_ND: At the hidden states.
        parameters: At the head's parameters, by name; of a frozen head there are none.
    """

    sums: LossSums
    hidden_ND: mx.array
    parameters: Mapping[str, mx.array] = {}


def number(scalar: mx.array) -> float:
    """A real scalar as a Python number; waits for it to be computed."""
    value = scalar.item()
    assert not isinstance(value, complex)
    return float(value)
