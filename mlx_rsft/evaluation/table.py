"""The table of metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_rsft.evaluation import likely, values, written
from mlx_rsft.evaluation.evidence import WRITTEN, Evidence
from mlx_rsft.evaluation.values import Summary, Values

PerRow = Callable[[Evidence], Values]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        factory: Makes the metric from its parameters, whose names, types and defaults
            are those of its arguments.
        summary: How rows become one figure.
        better: ``higher`` or ``lower``.
        needs: What it asks for beyond the one pass over the demonstrations; it is then
            computed by name only, because it costs more.
    """

    factory: Callable[..., PerRow]
    about: str
    unit: str
    better: str
    summary: Summary
    needs: tuple[str, ...] = ()


METRICS: dict[str, Entry] = {
    "nll": Entry(
        likely.nll,
        "true negative log-likelihood per token",
        "nats/token",
        "lower",
        values.ratio,
    ),
    "perplexity": Entry(
        likely.nll, "exp of the NLL", "per token", "lower", values.exponential
    ),
    "token_accuracy": Entry(
        likely.token_accuracy,
        "share of tokens that are the first choice",
        "fraction",
        "higher",
        values.ratio,
    ),
    "exact_match": Entry(
        likely.exact_match,
        "share of answers that greedy decoding would write, by teacher forcing",
        "fraction",
        "higher",
        values.share,
    ),
    "generated_exact_match": Entry(
        written.generated_exact_match,
        "share of answers that greedy decoding did write",
        "fraction",
        "higher",
        values.share,
        needs=(WRITTEN,),
    ),
}
