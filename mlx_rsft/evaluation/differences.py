"""Models against a baseline, row by row: differences with what tells them from chance.

Shapes: S seeds, N rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlx_rsft import stats
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import values as summaries
from mlx_rsft.evaluation.spelling import WHERE, Gauge
from mlx_rsft.evaluation.values import Values
from mlx_rsft.records import Metric

BOOTSTRAP, MCNEMAR = "bootstrap", "mcnemar"
DISAGREE = 0.2
"""Share of rows on which two models are assumed to disagree, before it is known."""

Measurements = Mapping[str, Mapping[str, Sequence[Values]]]
"""By split and metric: the values of one arm's rows, one entry per seed."""
Detectable = Callable[[str, str], float]
"""The smallest detectable difference of a split and metric, as it was stated before."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One arm against the baseline, on one split by one metric.

    Attributes:
        difference: The arm's value minus the baseline's.
        p_adjusted: By Holm, over arms and splits of the metric.
        detectable: The smallest difference that so many rows were expected to show.
        better: ``higher`` or ``lower``.
        spread: Standard deviation of the difference over rows.
    """

    split: str
    metric: str
    arm: str
    baseline: str
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    n: int
    seeds: int
    detectable: float
    test: str
    better: str
    unit: str
    spread: float

    @property
    def gain(self) -> float:
        """The difference, positive where the arm is better."""
        return self.difference if self.better == "higher" else -self.difference

    @property
    def most(self) -> float:
        """The largest gain that the interval allows."""
        return self.high if self.better == "higher" else -self.low

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def check(gauges: Mapping[str, Gauge]) -> None:
    """Raise ConfigError for metrics that cannot be compared row by row.

    None may be more than a sum over rows, and the first one, which decides, has to
    have a better side.
    """
    name, first = next(iter(gauges.items()))
    if first.better not in ("higher", "lower"):
        raise ConfigError(
            f"{name} cannot decide, because neither more nor less of it is better.",
            where=WHERE,
            hint="Name another metric first, such as exact_match.",
        )
    for name, gauge in gauges.items():
        if gauge.entry.summary is summaries.exponential:
            raise ConfigError(
                f"Rows have no {name} that could be paired.",
                where=WHERE,
                hint="Compare its logarithm, nll.",
            )


def differences(
    arms: Mapping[str, Measurements],
    baseline: str,
    gauges: Mapping[str, Gauge],
    detectable: Detectable,
    seed: int,
) -> list[Contrast]:
    """Every arm against the baseline on every split by every metric.

    Args:
        arms: What was measured, the baseline among them; the same rows and seeds in
            the same order everywhere.
        baseline: The name of the arm that the others are held against.
        gauges: The metrics.
        detectable: What was expected to be found.
        seed: Fixes what the bootstrap draws.
    """
    found: list[Contrast] = []
    for metric, gauge in gauges.items():
        raw = [
            _contrast(
                (split, metric, arm, baseline),
                arms[arm][split][metric],
                arms[baseline][split][metric],
                gauge,
                detectable(split, metric),
                seed,
            )
            for arm in arms
            for split in arms[arm]
            if arm != baseline
        ]
        found += _adjusted(raw)
    return found


def _contrast(
    names: tuple[str, str, str, str],
    arm: Sequence[Values],
    base: Sequence[Values],
    gauge: Gauge,
    detectable: float,
    seed: int,
) -> Contrast:
    marks = is_marks(gauge)
    apart = stats.difference(
        _influences(arm) - _influences(base),
        seed=_draw_seed(seed, names[0]),
        grain=1.0 if marks else 0.0,
    )
    exact = marks and len(arm) == 1
    p_value = apart.p_value
    if exact:
        p_value = stats.mcnemar(arm[0].totals, base[0].totals)
    return Contrast(
        *names,
        difference=apart.value,
        low=apart.low,
        high=apart.high,
        p_value=p_value,
        p_adjusted=p_value,
        n=apart.n,
        seeds=apart.seeds,
        detectable=detectable,
        test=MCNEMAR if exact else BOOTSTRAP,
        better=gauge.better,
        unit=gauge.entry.unit,
        spread=apart.spread,
    )


def _adjusted(family: Sequence[Contrast]) -> list[Contrast]:
    """Unknown p-values stay unknown and count as the largest."""
    known = [1.0 if np.isnan(c.p_value) else c.p_value for c in family]
    return [
        replace(contrast, p_adjusted=p)
        for contrast, p in zip(family, stats.holm(known), strict=True)
    ]


def is_marks(gauge: Gauge) -> bool:
    """Whether rows are right or wrong, and nothing between."""
    return gauge.entry.summary is summaries.share


def pooled(seeds: Sequence[Values], gauge: Gauge, seed: int) -> Metric:
    """One arm's figure over its seeds; ``n`` counts rows, which all seeds share."""
    if len(seeds) == 1:
        return gauge.summarise(seeds[0])
    marks = is_marks(gauge)
    grain = 1.0 if marks else 0.0
    found = stats.difference(_influences(seeds), seed=seed, grain=grain)
    low, high = found.low, found.high
    if marks:
        low, high = max(0.0, low), min(1.0, high)
    stderr = (found.high - found.low) / (2 * stats.Z95)
    return Metric(found.value, gauge.entry.unit, found.n, stderr, low, high)


def expected_spread(gauge: Gauge, base: Values) -> float:
    """The spread of paired differences over rows that is assumed beforehand.

    Two models are taken to disagree on a fifth of the rows where those are right or
    wrong; else to differ as much as the bare model's rows do among themselves.
    """
    if is_marks(gauge):
        return DISAGREE**0.5
    return float(_influences([base]).std())


def _influences(seeds: Sequence[Values]) -> np.ndarray:
    totals = [values.totals for values in seeds]
    ones = [1.0] * len(totals[0])
    counts = [ones if values.counts is None else values.counts for values in seeds]
    return stats.influences(totals, counts)


def _draw_seed(seed: int, split: str) -> int:
    return zlib.crc32(f"{seed} {split}".encode())
