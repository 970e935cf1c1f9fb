"""The one function that measures a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import choices, generate, likelihood, moved, rehearsal
from mlx_rsft.evaluation.evidence import BASE, ENTROPY, WRITTEN, Evidence
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.spelling import Gauge
from mlx_rsft.evaluation.values import Values
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.records import Metric, SplitRecord


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one split, and what each row contributes to them.

    Attributes:
        record: The figures.
        values: What each metric says of each row, in the rows' order.
        gauges: The metrics themselves.
        tags: The figures over the rows of each tag.
        written: Greedy answers; empty if no chosen metric asked for them.
    """

    record: SplitRecord
    values: Mapping[str, Values]
    gauges: Sequence[Gauge]
    tags: Mapping[str, SplitRecord]
    written: Sequence[Answer] = ()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self.record.metrics

    @property
    def items(self) -> dict[str, list[float]]:
        """One value per row, of each metric that is a mean over rows."""
        return {
            name: list(values.totals)
            for name, values in self.values.items()
            if values.counts is None
        }

    @property
    def totals(self) -> dict[str, tuple[list[float], list[float]]]:
        """Sums and counts per row, of each metric that is a ratio such as the NLL."""
        return {
            name: (list(values.totals), list(values.counts))
            for name, values in self.values.items()
            if values.counts is not None
        }

    def as_record(self) -> dict[str, Any]:
        """The figures as ``eval --json`` prints them."""
        record = self.record.as_record()
        if self.tags:
            tags = {tag: part.as_record() for tag, part in self.tags.items()}
            record["tags"] = tags
        return record


def measure(
    split: SplitModel,
    tokenizer: Any,
    examples: Sequence[Example],
    metrics: Mapping[str, Gauge],
    max_tokens: int,
    report: Callable[[int], None] | None = None,
    trunk: Trunk | None = None,
) -> Measured:
    """Every chosen metric of one split.

    Args:
        split: The model.
        tokenizer: Turns its tokens into text.
        examples: The rows.
        metrics: What to compute of them.
        max_tokens: Of a generated answer, at most.
        report: Is told rows done.
        trunk: Knows what the model's frozen blocks make of a row.

    Raises:
        RsftError: If a row cannot be judged by a chosen metric; before anything is
            computed.
    """
    spread = [one for gauge in metrics.values() for one in gauge.spread(examples)]
    rehearsal.check(examples, spread)
    needs = {need for gauge in spread for need in gauge.entry.needs}
    model = split.model
    scores = likelihood.score(split, examples, report, trunk, entropy=ENTROPY in needs)
    written: list[Answer] = []
    if WRITTEN in needs:
        agreed = [score.agreed for score in scores]
        written = generate.answers(
            model, tokenizer, examples, max_tokens, agreed=agreed
        )
    known = Evidence(
        examples,
        scores,
        written,
        _samples(model, tokenizer, examples, max_tokens, spread),
        moved.compare(split, examples, trunk) if BASE in needs else (),
        partial(choices.scored, split, tokenizer, examples),
    )
    values = {gauge.name: gauge.per_row(known) for gauge in spread}

    def record(places: Sequence[int]) -> SplitRecord:
        return SplitRecord(
            rows=len(places),
            tokens=sum(scores[place].tokens for place in places),
            metrics={g.name: g.summarise(values[g.name].at(places)) for g in spread},
        )

    tags = {tag: record(places) for tag, places in _by_tag(examples).items()}
    return Measured(record(range(len(examples))), values, spread, tags, written)


def _by_tag(examples: Sequence[Example]) -> dict[str, list[int]]:
    """The places of the rows that have each tag, the tags in order."""
    found: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        for tag in dict.fromkeys(example.tags):
            found.setdefault(tag, []).append(place)
    return dict(sorted(found.items()))


def _samples(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    gauges: Sequence[Gauge],
) -> list[list[Answer]]:
    for gauge in gauges:
        if gauge.sampling:
            return generate.samples(
                model, tokenizer, examples, max_tokens, gauge.sampling
            )
    return []
