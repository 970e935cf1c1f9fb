"""Metrics of the demonstrated answers' likelihood: all from one forward pass."""

from __future__ import annotations

from collections.abc import Callable

from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.values import Values

PerRow = Callable[[Evidence], Values]


def nll() -> PerRow:
    """Summed nats of each row, over its supervised tokens."""
    return lambda known: Values(
        [score.nll for score in known.scores], [score.tokens for score in known.scores]
    )


def token_accuracy() -> PerRow:
    """Tokens that are the model's first choice, over supervised tokens."""
    return lambda known: Values(
        [score.correct for score in known.scores],
        [score.tokens for score in known.scores],
    )


def exact_match() -> PerRow:
    """Whether greedy decoding would write the row's answer, by teacher forcing."""
    return lambda known: Values([float(score.exact) for score in known.scores])


def entropy() -> PerRow:
    """Entropy of the model's distribution, summed over the supervised tokens."""
    return lambda known: Values(
        [score.entropy for score in known.scores],
        [score.tokens for score in known.scores],
    )
