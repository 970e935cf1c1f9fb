"""Whether a model is shown to be worse than those it is held against, on frozen rows.

An alarm wants more than a point below: the whole interval of the loss has to lie beyond
what is tolerated. The interval has two parts. Rows: the same ones, so their differences
are paired. Seeds: a training with another seed differs too, and how much is estimated
from the references, where there are two or more; with one, a wider tolerance stands for
it. The level is shared out among all that is watched.

Shapes: R references, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mlx_rsft import stats
from mlx_rsft.evaluation.spelling import Gauge
from mlx_rsft.evaluation.values import Values
from mlx_rsft.evaluation.verdict import FRACTION

LEVEL = 0.02
"""Chance that anything at all is alarmed at, where nothing is worse.

Below 5 %, because every later model is held against the same few references: where these
happen to lie close together, all are alarmed at more often.
"""
POINTS, SHARE = 0.02, 0.05
"""What is tolerated by default: of a fraction in its unit, of others a share of them."""
POINTS_ALONE, SHARE_ALONE = 0.05, 0.5
"""The same where one reference says nothing of how seeds differ."""
HELD, WORSE, APART = "held", "worse", "not comparable"


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of one split against the references.

    Attributes:
        value: What the model reaches; ``reference`` is the mean of the references.
        gain: How much better it is, in the metric's unit; worse is below 0.
        low: Least gain that the data allow; ``high`` is the most.
        tolerance: Loss that is no reason to alarm.
        outcome: ``held``, ``worse``, or ``not comparable`` where tokens are others; what
            is no number any more is worse.
    """

    split: str
    metric: str
    value: float
    reference: float
    gain: float
    low: float
    high: float
    tolerance: float
    outcome: str


def gates(gauge: Gauge) -> bool:
    """Whether more or less of a metric is worse at all."""
    return gauge.better in ("higher", "lower")


def check(
    named: tuple[str, Gauge],
    now: Values,
    references: Sequence[Values],
    tolerance: float | None,
    num_checks: int,
) -> Check:
    """Hold a model's rows against those of the references.

    Args:
        named: The split, and the metric.
        now: What the metric says of each row.
        references: The same of each reference, at least one.
        tolerance: None: the default.
        num_checks: How many are made at once.
    """
    split, gauge = named
    sign = 1.0 if gauge.better == "higher" else -1.0
    now_N = _by_row([now])[0]
    held_RN = _by_row(references)
    value, reference = float(now_N.mean()), float(held_RN.mean())
    if _others(now, references) or not math.isfinite(value - reference):
        broken = math.isfinite(reference) and not math.isfinite(value)
        outcome = WORSE if broken else APART
        none, tolerated = math.nan, tolerance or 0.0
        return Check(
            split, gauge.name, value, reference, none, none, none, tolerated, outcome
        )
    gain = sign * (value - reference)
    grain = 1.0 if gauge.entry.unit == FRACTION else 0.0
    half = _half(now_N - held_RN.mean(0), held_RN.mean(1), grain, num_checks)
    allowed = tolerance
    if allowed is None:
        allowed = _allowed(gauge, reference, len(references))
    outcome = WORSE if gain + half < -allowed else HELD
    return Check(
        split,
        gauge.name,
        value,
        reference,
        gain,
        gain - half,
        gain + half,
        allowed,
        outcome,
    )


def _others(now: Values, references: Sequence[Values]) -> bool:
    """Whether a sum was over other tokens, as with another tokenizer."""
    return any(list(now.counts or ()) != list(then.counts or ()) for then in references)


def _by_row(found: Sequence[Values]) -> np.ndarray:
    """(R, N) what each row says of the figure; its mean over rows is the figure."""
    totals = [one.totals for one in found]
    counts = [one.counts or [1.0] * len(one.totals) for one in found]
    return stats.influences(totals, counts)


def _half(
    apart_N: np.ndarray, references_R: np.ndarray, grain: float, num_checks: int
) -> float:
    """Half of an interval that is left on one side in ``LEVEL / num_checks`` of cases."""
    share = 1 - LEVEL / num_checks
    n, count = len(apart_N), len(references_R)
    spread = float(apart_N.var(ddof=1)) / n if n > 1 else math.inf
    of_rows = NormalDist().inv_cdf(share) * math.sqrt(spread + (grain / n) ** 2)
    if count < 2:
        return of_rows
    of_seed = float(references_R.std(ddof=1)) * math.sqrt(1 + 1 / count)
    return math.hypot(of_rows, stats.student(share, count - 1) * of_seed)


def _allowed(gauge: Gauge, reference: float, count: int) -> float:
    points, share = (POINTS, SHARE) if count > 1 else (POINTS_ALONE, SHARE_ALONE)
    return points if gauge.entry.unit == FRACTION else share * abs(reference)
