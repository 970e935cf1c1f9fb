"""What so many rows can show: to be said before the results are known."""

from __future__ import annotations

import math

Z_LEVEL, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Quantiles of the normal distribution: two-sided 5 %, and a power of 80 %."""


def detectable(spread: float, n: int) -> float:
    """The smallest true difference that is found in 80 of 100 comparisons, at 5 %.

    Args:
        spread: Standard deviation over rows of the paired difference; for right and
            wrong the root of the share of rows on which two models disagree.
        n: Rows.
    """
    return (Z_LEVEL + Z_POWER) * spread / math.sqrt(n) if n else math.nan


def rows_to_rule_out(difference: float, spread: float, margin: float) -> int:
    """So many rows would as often show that a true difference is below ``margin``.

    Args:
        difference: Below ``margin``.
        spread: Standard deviation over rows of the paired difference.
        margin: Above it.
    """
    return math.ceil(((Z_LEVEL + Z_POWER) * spread / (margin - difference)) ** 2)


def rows_needed(difference: float, spread: float) -> int:
    """So many rows would show a true difference of this size as often as that."""
    return math.ceil(((Z_LEVEL + Z_POWER) * spread / difference) ** 2)
