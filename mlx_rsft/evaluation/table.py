"""The table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import (
    choices,
    drift,
    fields,
    judges,
    likely,
    refusals,
    sampled,
    written,
)
from mlx_rsft.evaluation.evidence import (
    BASE,
    ENTROPY,
    OPTIONS,
    SAMPLES,
    WRITTEN,
    Evidence,
)
from mlx_rsft.evaluation.values import Summary, Values, exponential, mean, ratio, share

PerRow = Callable[[Evidence], Values]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        factory: Makes the metric from its parameters, whose names, types and defaults
            are those of its arguments.
        better: ``higher``, ``lower``, ``near 1`` or ``neither``.
        summary: How rows become one figure.
        needs: What it asks for beyond the one pass over the demonstrations; it is then
            computed by name only, because it costs more.
        spread: Parameters that it is also computed with when it has none, by the rows.
    """

    factory: Callable[..., PerRow]
    about: str
    unit: str
    better: str
    summary: Summary
    needs: tuple[str, ...] = ()
    spread: Callable[[Sequence[Example]], Iterable[tuple[str, str]]] | None = None


def _fields(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [("field", name) for name in fields.names(row.answer for row in examples)]


def _greedy(factory: Callable[..., PerRow], about: str) -> Entry:
    """A metric of right and wrong among greedy answers."""
    return Entry(factory, about, "fraction", "higher", share, (WRITTEN,))


METRICS: dict[str, Entry] = {
    "nll": Entry(
        likely.nll,
        "true negative log-likelihood per token",
        "nats/token",
        "lower",
        ratio,
    ),
    "perplexity": Entry(
        likely.nll, "exp of the NLL", "per token", "lower", exponential
    ),
    "token_accuracy": Entry(
        likely.token_accuracy,
        "share of tokens that are the first choice",
        "fraction",
        "higher",
        ratio,
    ),
    "exact_match": Entry(
        likely.exact_match,
        "share of answers that greedy decoding would write, by teacher forcing",
        "fraction",
        "higher",
        share,
    ),
    "entropy": Entry(
        likely.entropy,
        "entropy of the distribution at each demonstrated token",
        "nats/token",
        "neither",
        ratio,
        (ENTROPY,),
    ),
    "generated_exact_match": _greedy(
        written.by(judges.exact), "share of answers that greedy decoding did write"
    ),
    "contains": _greedy(
        written.by(judges.contains), "the answer, or text=, is in what was written"
    ),
    "numeric": _greedy(
        written.by(judges.numeric),
        "the number is right, within tolerance= or relative=",
    ),
    "regex": _greedy(
        written.by(judges.regex), "what pattern= (group=) matches is right"
    ),
    "json": Entry(
        written.by(judges.json_fields),
        "all fields of a JSON answer are right; also each field= by itself",
        "fraction",
        "higher",
        share,
        (WRITTEN,),
        spread=_fields,
    ),
    "format_valid": _greedy(
        written.by(judges.format_valid),
        "the answer is JSON with the row's fields, or matches pattern=",
    ),
    "length_ratio": Entry(
        written.length_ratio,
        "tokens written over tokens demonstrated",
        "ratio",
        "near 1",
        ratio,
        (WRITTEN,),
    ),
    "end_of_turn": _greedy(
        written.end_of_turn, "share of answers that end before the limit"
    ),
    "refusal": Entry(
        written.by(refusals.declines),
        "share of answers that decline, told by their first words",
        "fraction",
        "neither",
        share,
        (WRITTEN,),
    ),
    "avg_at_n": Entry(
        sampled.avg_at_n,
        "share of sampled answers that are right, by=exact or another judge",
        "fraction",
        "higher",
        mean,
        (SAMPLES,),
    ),
    "pass_at_k": Entry(
        sampled.pass_at_k,
        "chance that one of k= sampled answers is right, unbiased",
        "fraction",
        "higher",
        mean,
        (SAMPLES,),
    ),
    "distinct_answers": Entry(
        sampled.distinct_answers,
        "share of a row's sampled answers that differ",
        "fraction",
        "neither",
        mean,
        (SAMPLES,),
    ),
    "distinct_ngrams": Entry(
        sampled.distinct_ngrams,
        "share of runs of n= words in a row's samples that differ",
        "fraction",
        "neither",
        ratio,
        (SAMPLES,),
    ),
    "choices": Entry(
        choices.choices,
        "the likeliest of the row's choices, or of=A|B or file=, is right",
        "fraction",
        "higher",
        share,
        (OPTIONS,),
    ),
    "drift_kl": Entry(
        drift.kl,
        "forward KL from the base, the adapter off",
        "nats/token",
        "lower",
        ratio,
        (BASE,),
    ),
    "drift_k3": Entry(
        drift.k3,
        "k3 from the base at the demonstrated tokens",
        "nats/token",
        "lower",
        ratio,
        (BASE,),
    ),
    "drift_nll": Entry(
        drift.rise,
        "NLL less that of the base",
        "nats/token",
        "lower",
        ratio,
        (BASE,),
    ),
}

USER = Entry(
    written.by(judges.exact),
    "mean of your own function's score",
    "score",
    "higher",
    mean,
    (WRITTEN,),
)
"""What holds of every ``module:function``; its factory is the user's."""
