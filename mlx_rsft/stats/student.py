"""Student's t: what stands for the normal distribution where a spread is estimated."""

from __future__ import annotations

import math

import numpy as np

POINTS = 200_001


def student(share: float, freedom: int) -> float:
    """The value that a share of Student's t distribution is below.

    With ``x = sqrt(freedom) tan(a)`` the density of ``a`` is that of ``cos^(freedom-1)``,
    which is summed up.

    Args:
        share: Between 0 and 1.
        freedom: Degrees of freedom, at least 1.
    """
    angle = np.linspace(-math.pi / 2, math.pi / 2, POINTS)
    density = np.clip(np.cos(angle), 0, None) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    at = float(np.interp(share, below / below[-1], angle))
    return math.sqrt(freedom) * math.tan(at)
