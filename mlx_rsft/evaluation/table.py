"""The table of metrics, and the one function that measures a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_rsft import stats
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.evaluation import generate, likelihood
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.records import Metric, SplitRecord


@dataclass(frozen=True, slots=True)
class Evidence:
    """What metrics are computed from: one entry per row, in order.

    Attributes:
        written: Generated answers; empty if no chosen metric needs them.
    """

    examples: Sequence[Example]
    scores: Sequence[RowScore]
    written: Sequence[str]


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table.

    Attributes:
        better: ``higher`` or ``lower``.
        generates: Needs generated answers, which cost far more than one pass.
    """

    compute: Callable[[Evidence], Metric]
    about: str
    better: str
    generates: bool = False


def _nll(evidence: Evidence) -> Metric:
    scores = evidence.scores
    return stats.ratio(
        [s.nll for s in scores], [s.tokens for s in scores], "nats/token"
    )


def _perplexity(evidence: Evidence) -> Metric:
    return stats.exponential(_nll(evidence), "per token")


def _token_accuracy(evidence: Evidence) -> Metric:
    scores = evidence.scores
    hits, tokens = [s.correct for s in scores], [s.tokens for s in scores]
    return stats.ratio(hits, tokens, "fraction")


def _exact_match(evidence: Evidence) -> Metric:
    return stats.proportion([score.exact for score in evidence.scores])


def _generated_exact_match(evidence: Evidence) -> Metric:
    pairs = zip(evidence.written, evidence.examples, strict=True)
    return stats.proportion([text.strip() == e.answer.strip() for text, e in pairs])


METRICS: dict[str, Measure] = {
    "nll": Measure(_nll, "true negative log-likelihood per token", "lower"),
    "perplexity": Measure(_perplexity, "exp of the NLL", "lower"),
    "token_accuracy": Measure(
        _token_accuracy, "share of tokens that are the first choice", "higher"
    ),
    "exact_match": Measure(
        _exact_match,
        "share of answers that greedy decoding would write, by teacher forcing",
        "higher",
    ),
    "generated_exact_match": Measure(
        _generated_exact_match,
        "share of answers that greedy decoding did write",
        "higher",
        generates=True,
    ),
}


def choose(names: Sequence[str]) -> dict[str, Measure]:
    """The named metrics; with no name, all that need one forward pass only.

    Raises:
        ConfigError: If there is no such metric.
    """
    for name in names:
        if name not in METRICS:
            raise ConfigError(
                f"There is no metric {name!r}.",
                where="evaluation.metrics",
                hint=nearest(name, METRICS),
            )
    if names:
        return {name: METRICS[name] for name in names}
    return {name: entry for name, entry in METRICS.items() if not entry.generates}


def measure(
    split: SplitModel,
    tokenizer: Any,
    examples: Sequence[Example],
    metrics: dict[str, Measure],
    max_tokens: int,
    report: Callable[[int], None] | None = None,
    trunk: Trunk | None = None,
) -> SplitRecord:
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
    scores = likelihood.score(split, examples, report, trunk)
    written: list[str] = []
    if any(entry.generates for entry in metrics.values()):
        written = generate.answers(split.model, tokenizer, examples, max_tokens)
    evidence = Evidence(examples, scores, written)
    return SplitRecord(
        rows=len(examples),
        tokens=sum(score.tokens for score in scores),
        metrics={name: entry.compute(evidence) for name, entry in metrics.items()},
    )
