"""The record of a comparison, ``comparison.json``, as typed values for the report.

Unknown numbers are None; parts that a record lacks are empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_rsft.report import typed
from mlx_rsft.report.typed import Mistyped

BASE = "base"
"""The arm that is the untrained model."""
Outcome = Literal["better", "worse", "changed", "unclear"]
CLASSES = ("content", "template", "end")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its 95 % interval."""

    value: float | None
    unit: str = ""
    n: int | None = None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of an arm on a split, pooled over seeds."""

    metrics: Mapping[str, Measured]
    rows: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of an arm took, in the mean over its seeds; the highest peak."""

    seconds: float | None = None
    joules: float | None = None
    peak_bytes: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """What the objective did, in the last epoch."""

    mean_p: float | None = None
    ess: float | None = None
    weight_by_class: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train, over all its seeds; or the untrained model."""

    name: str
    splits: Mapping[str, Scores]
    objective: str | None = None
    seeds: Sequence[int] = ()
    learning_rate: float | None = None
    cost: Cost | None = None
    training: Training | None = None
    diverged: bool | None = False

    def score(self, split: str, metric: str) -> Measured | None:
        """What was measured there, if anything."""
        scores = self.splits.get(split)
        found = scores.metrics.get(metric) if scores else None
        return None if found is None or found.value is None else found


@dataclass(frozen=True, slots=True)
class Split:
    """Rows that all arms are scored on; ``in``: drawn like the training rows."""

    rows: int | None = None
    tokens: int | None = None
    role: Literal["in", "shifted"] = "shifted"


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm against the baseline, on the same rows."""

    split: str
    metric: str
    arm: str
    baseline: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None = None
    p_adjusted: float | None = None
    n: int | None = None
    seeds: int | None = None
    detectable: float | None = None
    test: str = ""
    better: str = "higher"

    def outcome(self, level: float) -> Outcome:
        """What is shown: only where the interval and the corrected p both say so.

        A metric of which neither more nor less is better can only have changed.
        """
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "unclear"
        p = self.p_adjusted if self.p_adjusted is not None else self.p_value
        if p is not None and p > level:
            return "unclear"
        if self.better not in ("higher", "lower"):
            return "changed"
        return "better" if (self.low > 0) == (self.better == "higher") else "worse"

    @property
    def gain(self) -> float | None:
        """The difference with its sign turned so that more is better."""
        if self.difference is None:
            return None
        return self.difference if self.better == "higher" else -self.difference


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation during training; step 0 is the untrained model."""

    arm: str
    step: int
    split: str
    metric: str
    value: float | None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Histograms:
    """How many supervised tokens the model gives which probability."""

    before: Sequence[int] = ()
    after: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SideEffect:
    """What else changed: drift, retention, length, endings."""

    arm: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    set: str = ""
    unit: str = ""
    better: str = ""
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One row on which arms differ."""

    prompt: str
    reference: str
    answers: Mapping[str, str]
    right: Mapping[str, bool | None] = field(default_factory=dict)
    split: str = ""
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole record."""

    arms: Sequence[Arm]
    differences: Sequence[Difference]
    verdict: Literal["go", "no-go", "undecided"]
    reason: str
    version: str = ""
    model: str = ""
    data: str = ""
    created: str = ""
    seeds: Sequence[int] = ()
    steps: int | None = None
    level: float = 0.05
    baseline: str = ""
    recommended: str | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)
    curves: Sequence[CurvePoint] = ()
    histograms: Histograms | None = None
    side_effects: Sequence[SideEffect] = ()
    examples: Sequence[Example] = ()
    limits: Sequence[str] = ()
    method: Mapping[str, Any] = field(default_factory=dict)


def from_record(record: object) -> Comparison:
    """The record of a comparison, checked.

    Raises:
        Mistyped: If it is something else; the message says which place is wrong.
    """
    found: Comparison = typed.read(Comparison, record)
    if not found.arms:
        raise Mistyped("arms is empty")
    names = [arm.name for arm in found.arms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Mistyped(f"arms has {twice[:40]!r} twice")
    if not 0 < found.level < 1:
        raise Mistyped(f"level is {found.level:g}, expected to lie between 0 and 1")
    _check_bins(found.histograms)
    return found


def _check_bins(histograms: Histograms | None) -> None:
    if histograms is None:
        return
    bins = len(histograms.before)
    for arm, counts in histograms.after.items():
        if len(counts) != bins:
            raise Mistyped(
                f"histograms.after[{arm[:40]!r}] has {len(counts)} bins, expected {bins}"
            )
    everything = [
        *histograms.before,
        *(n for c in histograms.after.values() for n in c),
    ]
    if any(count < 0 for count in everything):
        raise Mistyped("histograms has a negative count")
