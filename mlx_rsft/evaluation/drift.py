"""Metrics of how far a model has moved from its base, per demonstrated token."""

from __future__ import annotations

from collections.abc import Callable

from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.values import Values

PerRow = Callable[[Evidence], Values]


def kl() -> PerRow:
    """Forward divergence from the base."""
    return lambda known: Values(
        [row.kl for row in known.moved], [row.tokens for row in known.moved]
    )


def k3() -> PerRow:
    """What the anchor ``k3`` sees."""
    return lambda known: Values(
        [row.k3 for row in known.moved], [row.tokens for row in known.moved]
    )


def rise() -> PerRow:
    """NLL above that of the base, row by row; on general rows, what was forgotten."""
    return lambda known: Values(
        [row.rise for row in known.moved], [row.tokens for row in known.moved]
    )
