"""One value with its interval: ratios, proportions, exponentials.

Rows are the units of sampling, not tokens.

References:
    Cochran, Sampling Techniques, 1977, 6.4 (ratio estimator); Wilson, JASA 1927.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mlx_rsft.records import Metric

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def ratio(totals: ArrayLike, counts: ArrayLike, unit: str) -> Metric:
    """``sum(totals) / sum(counts)``, with rows as clusters.

    Args:
        totals: One number per row, such as its summed NLL.
        counts: What it is a total of, such as its supervised tokens.
        unit: Unit of the quotient.

    Returns:
        The quotient, its linearised standard error and normal 95 % interval; the
        interval is unknown (NaN) with fewer than two rows, and all of it where there
        is nothing to divide by.
    """
    above, below = np.asarray(totals, float), np.asarray(counts, float)
    n = len(above)
    if not below.sum():
        return Metric(math.nan, unit, n, math.nan, math.nan, math.nan)
    value = float(above.sum() / below.sum())
    stderr = math.nan
    if n > 1:
        spread = float(((above - value * below) ** 2).sum())
        stderr = math.sqrt(n / (n - 1) * spread) / float(below.sum())
    return Metric(value, unit, n, stderr, value - Z95 * stderr, value + Z95 * stderr)


def proportion(hits: ArrayLike) -> Metric:
    """The share of rows that are true, with Wilson's 95 % interval, in [0, 1]."""
    marks = np.asarray(hits, bool)
    n, value = len(marks), float(marks.mean())
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    spread = value * (1 - value) / n
    half = Z95 * math.sqrt(spread + (Z95 / (2 * n)) ** 2) / (1 + Z95**2 / n)
    low = 0.0 if not marks.any() else centre - half
    high = 1.0 if marks.all() else centre + half
    return Metric(value, "fraction", n, math.sqrt(spread), low, high)


def exponential(metric: Metric, unit: str) -> Metric:
    """``exp`` of a metric and its interval; the standard error by the delta method."""
    value = math.exp(metric.value)
    return Metric(
        value,
        unit,
        metric.n,
        value * metric.stderr,
        math.exp(metric.low),
        math.exp(metric.high),
    )
