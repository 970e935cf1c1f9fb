"""The one function that measures a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import choices, generate, likelihood, moved
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
        written: Greedy answers; empty if no chosen metric asked for them.
    """

    record: SplitRecord
    values: Mapping[str, Values]
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
        return self.record.as_record()


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
    """
    spread = [one for gauge in metrics.values() for one in gauge.spread(examples)]
    needs = {need for gauge in spread for need in gauge.entry.needs}
    model = split.model
    scores = likelihood.score(split, examples, report, trunk, entropy=ENTROPY in needs)
    written: list[Answer] = []
    if WRITTEN in needs:
        written = generate.answers(model, tokenizer, examples, max_tokens)
    known = Evidence(
        examples,
        scores,
        written,
        _samples(model, tokenizer, examples, max_tokens, spread),
        moved.compare(split, examples) if BASE in needs else (),
        partial(choices.scored, split, tokenizer, examples),
    )
    values = {gauge.name: gauge.per_row(known) for gauge in spread}
    record = SplitRecord(
        rows=len(examples),
        tokens=sum(score.tokens for score in scores),
        metrics={g.name: g.summarise(values[g.name]) for g in spread},
    )
    return Measured(record, values, written)


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
