"""Tests without an approximation, and what several of them at once mean.

References:
    McNemar, Psychometrika 12 (1947); Holm, Scandinavian J. of Statistics 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def mcnemar(one: ArrayLike, other: ArrayLike) -> float:
    """The exact two-sided p-value that two sets of marks of the same rows are alike.

    Args:
        one: Right or wrong, per row.
        other: The same rows, marked for the other model.
    """
    first, second = np.asarray(one, bool), np.asarray(other, bool)
    return sign_test(int((first & ~second).sum()), int((second & ~first).sum()))


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value that either is as likely to win; 1 without any."""
    decided = wins + losses
    ways = sum(math.comb(decided, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * ways / 2**decided)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being a family: one at most 0.05 is a claim at 5 % for all.

    Args:
        p_values: In any order.

    Returns:
        The adjusted ones in the same order.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, (len(order) - rank) * p_values[place])
        adjusted[place] = min(1.0, least)
    return adjusted
