"""What a metric says of each row, and how rows become one figure with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_rsft import stats
from mlx_rsft.records import Metric


@dataclass(frozen=True, slots=True)
class Values:
    """One entry per row, in order.

    Attributes:
        totals: The row's value; where ``counts`` are there, a sum over that many.
        counts: What the totals are sums over, such as tokens; None where every row
            counts alike.
    """

    totals: Sequence[float]
    counts: Sequence[float] | None = None

    def at(self, places: Sequence[int]) -> Values:
        """The values of some of the rows."""
        counts = self.counts
        return Values(
            [self.totals[n] for n in places],
            None if counts is None else [counts[n] for n in places],
        )


Summary = Callable[[Values, str], Metric]
"""From the rows' values and their unit to the figure."""


def share(values: Values, unit: str) -> Metric:
    """Of rows that are each 0 or 1."""
    del unit
    return stats.proportion(values.totals)


def mean(values: Values, unit: str) -> Metric:
    """Of one number per row."""
    return stats.ratio(values.totals, [1] * len(values.totals), unit)


def ratio(values: Values, unit: str) -> Metric:
    """Of sums and counts, with rows as clusters."""
    assert values.counts is not None, "the metric does not count"
    return stats.ratio(values.totals, values.counts, unit)


def exponential(values: Values, unit: str) -> Metric:
    """``exp`` of such a ratio."""
    return stats.exponential(ratio(values, unit), unit)
