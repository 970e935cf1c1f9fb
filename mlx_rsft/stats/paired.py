"""Two models on the same rows, trained from the same seeds: how far apart they are.

The bootstrap has two levels. Rows are resampled, the same ones for every seed, because
every seed was measured on them. Seeds are too few to be resampled: three values show no
distribution, and drawing from them finds intervals that are far too narrow. Their spread
is estimated instead, by the analysis of variance of two crossed random effects, and drawn
from with the uncertainty that so few of them leave. In simulation the 95 % intervals hold
the truth in 93 to 97 of 100 comparisons of one seed, and of three and five that differ.
Where seeds hardly differ they hold it more often: three cannot show that they do not.

Shapes: S seeds, N rows.

References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Searle, Casella and
    McCulloch, Variance Components, 1992; Weerahandi, JASA 88 (1993).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 10_000
CHUNK = 2_000_000
"""Most resampled rows that are held at once."""
TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference, its 95 % interval and two-sided p-value.

    Attributes:
        n: Rows that were compared.
        seeds: Trainings per model.
        spread: Standard deviation over rows of the difference, mean over seeds.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    seeds: int
    spread: float


def influences(totals_SN: ArrayLike, counts_SN: ArrayLike) -> np.ndarray:
    """What each row says of ``sum(totals) / sum(counts)``: its mean over rows is that.

    Args:
        totals_SN: One number per row, such as its NLL.
        counts_SN: What they are totals of, such as the row's tokens.

    Returns:
        Linearised values, shape ``(S, N)``; with all counts 1 the totals themselves.
    """
    above, below = np.asarray(totals_SN, float), np.asarray(counts_SN, float)
    ratios_S1 = above.sum(1, keepdims=True) / below.sum(1, keepdims=True)
    return ratios_S1 + (above - ratios_S1 * below) / below.mean(1, keepdims=True)


def difference(
    values_SN: ArrayLike, *, seed: int, grain: float = 0.0, draws: int = DRAWS
) -> Difference:
    """How far two models are apart, from what each row says.

    Args:
        values_SN: One model's value minus the other's, per seed and row.
        seed: Fixes what is drawn.
        grain: The least step that a row's value has: 1 where it is right or wrong, so
            that rows which all agree are not taken for proof; 0 where it is continuous.
        draws: Of the bootstrap.

    Returns:
        The difference; its interval is unknown (NaN) with fewer than two rows.
    """
    values = np.asarray(values_SN, float)
    num_seeds, n = values.shape
    value = float(values.mean())
    if n < 2:
        return Difference(value, math.nan, math.nan, math.nan, n, num_seeds, math.nan)
    rng = np.random.default_rng(seed)
    drawn = value + _of_rows(values.mean(0) - value, rng, draws)
    drawn += grain / n * rng.standard_normal(draws)
    drawn += _of_seeds(values, rng, draws)
    low, high = np.quantile(drawn, TAILS)
    return Difference(
        value,
        float(low),
        float(high),
        _p_value(drawn),
        n,
        num_seeds,
        float(values.mean(0).std(ddof=1)),
    )


def _of_rows(effects_N: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """What resampled rows would have added, of the spread that ``n - 1`` stands for."""
    n = len(effects_N)
    most = max(1, CHUNK // n)
    parts = [
        effects_N[rng.integers(n, size=(min(most, draws - begin), n))].mean(1)
        for begin in range(0, draws, most)
    ]
    return np.concatenate(parts) * math.sqrt(n / (n - 1))


def _of_seeds(
    values_SN: np.ndarray, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """What other seeds would have added, beyond what noise in the rows explains."""
    num_seeds, n = values_SN.shape
    if num_seeds < 2:
        return np.zeros(draws)
    seeds_S1 = values_SN.mean(1, keepdims=True) - values_SN.mean()
    noise_SN = values_SN - values_SN.mean(0) - seeds_S1
    of_seeds = n * float((seeds_S1**2).sum()) / (num_seeds - 1)
    of_noise = float((noise_SN**2).sum()) / ((num_seeds - 1) * (n - 1))
    scale = (num_seeds - 1) / rng.chisquare(num_seeds - 1, draws)
    beyond = np.maximum(0.0, of_seeds * scale - of_noise) / (num_seeds * n)
    return np.sqrt(beyond) * rng.standard_normal(draws)


def _p_value(drawn: np.ndarray) -> float:
    """At most 0.05 where the 95 % interval leaves zero out; never quite zero."""
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
