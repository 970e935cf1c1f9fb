"""What a hypothesis says in numbers, and whether rows and seeds bear it out.

A claim is about one weighted sum of arms: ``{"sft": 1, "dft": -1}`` on recall, above 0.2.
Shapes: S seeds, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlx_rsft import records, stats
from mlx_rsft.evaluation import METRICS
from mlx_rsft.evaluation.values import Values, share

SUPPORTED, AGAINST, UNDECIDED = "supported", "not supported", "undecided"
LEVEL = 0.05
LOG_STEPS = "log steps"
"""Natural logarithm of the steps until ``valid`` was reached; seeds are its rows."""

Reached = Mapping[str, Mapping[str, Mapping[str, Sequence[Values]]]]
"""By arm, split and metric: the values of its rows, one entry per seed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a hypothesis.

    Attributes:
        says: In words.
        split: As ``compare`` names it, without ``test_``.
        weights: By arm, what its mean counts.
        above: The sum is claimed to be larger than this.
    """

    says: str
    metric: str
    split: str
    weights: Mapping[str, float]
    above: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a claim.

    Attributes:
        low: End of the two-sided 95 % interval.
        p_value: One-sided, that the sum is not above what is claimed.
        p_adjusted: By Holm, over the claims of the experiment.
        mcnemar: Of each seed, where the claim holds two arms' marks against each other.
        needs: Rows that would decide, if the sum is what it seems; None if it is decided
            or if nothing points either way.
    """

    claim: Claim
    value: float
    low: float
    high: float
    n: int
    seeds: int
    p_value: float
    p_adjusted: float
    mcnemar: Sequence[float]
    verdict: str
    needs: int | None


def judge(claims: Sequence[Claim], reached: Reached) -> list[Found]:
    """Hold claims against what was reached; p-values are corrected for all of them."""
    single = [_single(claim, reached) for claim in claims]
    adjusted = stats.holm([found.p_value for found in single])
    return [_decided(found, p) for found, p in zip(single, adjusted, strict=True)]


def _single(claim: Claim, reached: Reached) -> Found:
    parts = {
        arm: influences(reached[arm][claim.split][claim.metric])
        for arm in claim.weights
    }
    values_SN = sum(w * parts[arm] for arm, w in claim.weights.items()) - claim.above
    marks = is_marks(claim.metric)
    grain = min(map(abs, claim.weights.values())) if marks else 0.0
    apart = stats.difference(values_SN, seed=0, grain=grain)
    half = apart.p_value / 2
    pairs = marks and sorted(claim.weights.values()) == [-1, 1]
    return Found(
        claim,
        apart.value + claim.above,
        apart.low + claim.above,
        apart.high + claim.above,
        apart.n,
        apart.seeds,
        p_value=half if apart.value > 0 else 1 - half,
        p_adjusted=1.0,
        mcnemar=[stats.mcnemar(*seed) for seed in zip(*parts.values(), strict=True)]
        if pairs
        else [],
        verdict=UNDECIDED,
        needs=None,
    )


def _decided(found: Found, p_adjusted: float) -> Found:
    found = replace(found, p_adjusted=p_adjusted)
    beyond = found.value - found.claim.above
    if p_adjusted <= LEVEL and beyond > 0:
        return replace(found, verdict=SUPPORTED)
    if found.high < found.claim.above:
        return replace(found, verdict=AGAINST)
    if not beyond:
        return found
    # The interval knows of seeds too, of which the spread over rows does not.
    stderr = (found.high - found.low) / (2 * stats.Z95)
    needed = stats.rows_needed(beyond, stderr * math.sqrt(found.n))
    return replace(found, needs=max(found.n + 1, needed))


def verdict(found: Sequence[Found]) -> str:
    """Of all claims together: every one has to hold, and one that fails is enough."""
    words = {one.verdict for one in found}
    return next(w for w in (AGAINST, UNDECIDED, SUPPORTED) if w in words)


def influences(seeds: Sequence[Values]) -> np.ndarray:
    """(S, N) what each row says of the metric."""
    totals = [values.totals for values in seeds]
    ones = [1.0] * len(totals[0])
    counts = [ones if values.counts is None else values.counts for values in seeds]
    return stats.influences(totals, counts)


def mean(seeds: Sequence[Values], metric: str) -> dict[str, Any]:
    """The metric of one arm with its interval over rows and seeds."""
    grain = 1.0 if is_marks(metric) else 0.0
    found = stats.difference(influences(seeds), seed=0, grain=grain)
    low, high = found.low, found.high
    if is_marks(metric):
        low, high = max(0.0, low), min(1.0, high)
    made: Any = records.finite(
        {
            "value": found.value,
            "low": low,
            "high": high,
            "n": found.n,
            "seeds": found.seeds,
        }
    )
    return made


def is_marks(metric: str) -> bool:
    """Whether rows are right or wrong, and nothing between."""
    name = metric.partition(":")[0]
    return name in METRICS and METRICS[name].summary is share
