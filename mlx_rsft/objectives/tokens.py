"""What an objective may know of a token, and what it answers: a weight.

The engine holds the weight constant, so that each objective has the logit gradient
``weight * (softmax - onehot)``; an objective never sees logits or gradients. Shapes: N
supervised tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import mlx.core as mx

TOP = 20
"""How many of the likeliest tokens ``top_entropy`` looks at."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of N tokens before the head runs; absent unless asked for.

    Attributes:
        row: (N,) int32: which row of the optimizer step the token belongs to.
        row_tokens: (N,) float32: supervised tokens in that row.
        scale: (N,) float32: multiplies the token's whole loss.
        plain: (N,) bool: the token is trained by plain SFT, whatever the objective.
        reference_logp: (N,) nats: log-probability under the untrained base model.
        lagged_logp: (N,) nats: log-probability under the model some steps ago.
        weight: (N,) the weight itself, where it was computed for the whole step.
        num_rows: Rows of the optimizer step.
        strength: How far the objective is switched in, 0 (plain SFT) to 1.
    """

    row: mx.array | None = None
    row_tokens: mx.array | None = None
    scale: mx.array | None = None
    plain: mx.array | None = None
    reference_logp: mx.array | None = None
    lagged_logp: mx.array | None = None
    weight: mx.array | None = None
    num_rows: int = 0
    strength: float = 1.0

    def between(self, start: int, end: int) -> Known:
        """The same facts of tokens ``start`` to ``end``."""
        return replace(
            self, **{name: value[start:end] for name, value in self.arrays().items()}
        )

    def arrays(self) -> dict[str, mx.array]:
        """Every fact that is there, by name."""
        held = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in held.items() if _is_array(value)}


def _is_array(value: object) -> bool:
    return isinstance(value, mx.array)


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Facts of N supervised tokens; those beside ``logp`` only if asked for.

    Attributes:
        logp: (N,) float32, nats: log-probability of the demonstrated token.
        entropy: (N,) nats: entropy of the model's distribution there.
        collision: (N,) sum of its squared probabilities.
        top_entropy: (N,) nats: entropy of its ``TOP`` likeliest tokens, renormalised.
    """

    logp: mx.array
    entropy: mx.array | None = None
    collision: mx.array | None = None
    top_entropy: mx.array | None = None
    known: Known = field(default_factory=Known)

    @property
    def p(self) -> mx.array:
        """(N,) probability of the demonstrated token."""
        return mx.exp(self.logp)


HEAD_FACTS = ("entropy", "collision", "top_entropy")
"""What the head can be asked for; each costs a pass over its logits."""

REFERENCE, LAGGED, STEP = "reference", "lagged", "step"
"""Other needs: the base model, an earlier model, all tokens of the step at once."""

TokenWeight = Callable[[TokenStats], mx.array]
"""A function from N token facts to N weights, (N,) float32, finite."""

Target = Callable[[mx.array, mx.array | None], mx.array]
"""From logits and the base model's logits, both (N, V), to log-probabilities (N, V)."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Draws the whole distribution ``p`` towards a held ``r``: ``strength * KL(r|p)``.

    Its logit gradient is ``strength * (softmax - r)``.
    """

    strength: float
    target: Target
    needs_reference: bool = False


def needed(value: mx.array | None) -> mx.array:
    """A fact that the table says the objective asked for."""
    assert value is not None, "the objective's entry does not name what it needs"
    return value


def row_means(values: mx.array, known: Known) -> mx.array:
    """The mean of ``values`` over the tokens of each row, given back per token (N,)."""
    row = needed(known.row)
    sums = mx.zeros((known.num_rows,)).at[row].add(values)
    counts = mx.zeros((known.num_rows,)).at[row].add(mx.ones_like(values))
    return (sums / mx.maximum(counts, 1))[row]
