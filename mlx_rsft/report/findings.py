"""What a comparison's numbers say, before anyone puts it into words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlx_rsft.report.comparison import BASE, Arm, Comparison, Difference

IN_DISTRIBUTION = "test"
"""The split of this name is drawn like the training rows, unless the record differs."""
LOWER = ("nll", "perplexity")
"""Metrics of which less is better, where no difference says so."""

MOST_TIMES = 1e6
"""A difference so many times smaller than what can be seen is none."""


class Findings:
    """The readings of one comparison.

    Attributes:
        metric: The one that decides, by ``method``; or else that of the first
            difference.
        splits: In order, those like the training rows first.
        trained: The arms without the untrained model, the baseline first.
    """

    def __init__(self, record: Comparison) -> None:
        self.record = record
        self.metric = _metric(record)
        self.splits = _splits(record)
        self.baseline = _baseline(record)
        arms = [arm for arm in record.arms if arm.name != BASE]
        self.trained = sorted(arms, key=lambda arm: arm.name != self.baseline)
        self.base = next((arm for arm in record.arms if arm.name == BASE), None)
        self._decisive = [d for d in record.differences if d.metric == self.metric]

    @property
    def all_arms(self) -> list[Arm]:
        """Every arm, the untrained model first, then the baseline."""
        return [*([self.base] if self.base else []), *self.trained]

    @property
    def lower_is_better(self) -> bool:
        if self._decisive:
            return self._decisive[0].better == "lower"
        return self.metric in LOWER

    @property
    def unit(self) -> str:
        """Of the deciding metric."""
        return self.unit_of(self.metric)

    def unit_of(self, metric: str) -> str:
        """As the arms have it; empty if none was measured."""
        return next(
            (
                scores.metrics[metric].unit
                for arm in self.record.arms
                for scores in arm.splits.values()
                if metric in scores.metrics
            ),
            "",
        )

    @property
    def metrics(self) -> list[str]:
        """All that were measured, the deciding one first."""
        names = {
            name: None
            for arm in self.record.arms
            for scores in arm.splits.values()
            for name in scores.metrics
        }
        return sorted(names, key=lambda name: name != self.metric)

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.record.arms if arm.name == name), None)

    def number(self, arm: str) -> int | None:
        """By which it has its colour, dash and marker; None for the untrained model."""
        names = [one.name for one in self.trained]
        return names.index(arm) if arm in names else None

    def rows(self, split: str) -> int | None:
        """How many rows a split has."""
        if split in self.record.splits and self.record.splits[split].rows is not None:
            return self.record.splits[split].rows
        found = (
            arm.splits[split].rows for arm in self.record.arms if split in arm.splits
        )
        return next((rows for rows in found if rows is not None), None)

    def is_shifted(self, split: str) -> bool:
        return _is_shifted(self.record, split)

    def difference(self, arm: str, split: str) -> Difference | None:
        """Of the deciding metric."""
        return next(
            (d for d in self._decisive if d.arm == arm and d.split == split), None
        )

    def differences(self, split: str) -> list[Difference]:
        """Of the deciding metric, in the order of the arms."""
        found = (self.difference(arm.name, split) for arm in self.trained)
        return [difference for difference in found if difference]

    def outcome(self, difference: Difference) -> str:
        return difference.outcome(self.record.level)

    @property
    def best(self) -> Difference | None:
        """The largest gain on shifted splits, or on any if there is none shifted.

        Of the recommended arm, if there is one. A gain that is shown goes before one
        that may be chance.
        """
        named = self.record.recommended
        mine = [d for d in self._decisive if d.arm == named] or self._decisive
        shifted = [d for d in mine if self.is_shifted(d.split)]
        return max(
            (d for d in shifted or mine if d.gain is not None),
            key=lambda d: (self.outcome(d) == "better", d.gain or 0.0),
            default=None,
        )

    @property
    def in_distribution(self) -> str:
        """The split that is drawn like the training rows; empty if there is none."""
        return next((name for name in self.splits if not self.is_shifted(name)), "")

    @property
    def zeros(self) -> list[tuple[Arm, list[str]]]:
        """Trained arms that have nothing right, with the splits where."""
        if self.lower_is_better:
            return []
        found = ((arm, self._zero_splits(arm)) for arm in self.trained)
        return [(arm, splits) for arm, splits in found if splits]

    def _zero_splits(self, arm: Arm) -> list[str]:
        scores = ((split, arm.score(split, self.metric)) for split in self.splits)
        return [split for split, score in scores if score and score.value == 0]

    @property
    def without_gain(self) -> list[str]:
        """Splits on which no arm is shown to be better than the baseline."""
        compared = ((split, self.differences(split)) for split in self.splits)
        return [
            split
            for split, found in compared
            if found and not any(self.outcome(d) == "better" for d in found)
        ]

    @property
    def harmed(self) -> list[Difference]:
        """Where an arm is shown to be worse than the baseline."""
        return [
            d
            for split in self.splits
            for d in self.differences(split)
            if self.outcome(d) == "worse"
        ]

    @property
    def diverged(self) -> list[Arm]:
        return [arm for arm in self.trained if arm.diverged]

    def rows_needed(self, difference: Difference) -> int | None:
        """Rows at which a difference of this size would be seen; None if nobody has them.

        The smallest detectable difference shrinks with the root of the rows.
        """
        size, seen = abs(difference.difference or 0.0), difference.detectable
        if not seen or not difference.n or not size < seen < MOST_TIMES * size:
            return None
        return math.ceil(difference.n * (seen / size) ** 2)


def _metric(record: Comparison) -> str:
    named = record.method.get("decides")
    if isinstance(named, str) and named:
        return named
    if record.differences:
        return record.differences[0].metric
    measured = (m for a in record.arms for s in a.splits.values() for m in s.metrics)
    return next(measured, "")


def _splits(record: Comparison) -> Sequence[str]:
    names = dict.fromkeys(record.splits)
    names |= dict.fromkeys(split for arm in record.arms for split in arm.splits)
    names |= dict.fromkeys(difference.split for difference in record.differences)
    return sorted(names, key=lambda name: _is_shifted(record, name))


def _is_shifted(record: Comparison, split: str) -> bool:
    known = record.splits.get(split)
    return known.role == "shifted" if known else split != IN_DISTRIBUTION


def _baseline(record: Comparison) -> str:
    if record.baseline:
        return record.baseline
    if record.differences:
        return record.differences[0].baseline
    return next((a.name for a in record.arms if a.name != BASE), record.arms[0].name)
