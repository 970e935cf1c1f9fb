"""Which objective a run with ``auto`` takes: a few rows, and how likely they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import tokenwise
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives.choose import Choice, Prior, choose
from mlx_rsft.workflows.reporter import Reporter

ROWS = 64
"""Rows to look at, and as many of each tag."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was found, and what follows from it."""

    overall: Prior
    by_tag: dict[str, Prior]
    choice: Choice

    def as_record(self) -> dict[str, Any]:
        """What it stands on, as it is in the manifest."""
        return {
            **asdict(self.overall),
            "tags": {tag: asdict(prior) for tag, prior in self.by_tag.items()},
            **asdict(self.choice),
        }


def choose_objective(
    split: SplitModel, examples: Sequence[Example], seed: int, reporter: Reporter
) -> Chosen:
    """Score a sample of the training rows with the base model, and choose.

    Args:
        split: The model without an adapter.
        examples: The training rows.
        seed: Fixes the sample.
        reporter: Told the figures and the reason.
    """
    sample = [examples[place] for place in sampled(examples, seed)]
    with reporter.task("probe", len(sample)) as advance:
        logp = np.array(tokenwise.read(split, sample, report=advance).logp)
    found = decide(sample, by_row(sample, logp))
    _report(found, reporter)
    return found


def sampled(examples: Sequence[Example], seed: int) -> list[int]:
    """The places of the rows that decide: ``ROWS`` of all, and of each tag."""
    order = shuffled(len(examples), seed)
    by_tag: dict[str, list[int]] = {}
    for place in order:
        for tag in examples[place].tags:
            by_tag.setdefault(tag, []).append(place)
    first = [order, *(by_tag[tag] for tag in sorted(by_tag))]
    return list(dict.fromkeys(place for places in first for place in places[:ROWS]))


def shuffled(num_rows: int, seed: int) -> list[int]:
    """The order in which rows are drawn into a sample."""
    return np.random.default_rng(seed).permutation(num_rows).tolist()


def by_row(examples: Sequence[Example], values: np.ndarray) -> list[np.ndarray]:
    """Figures of tokens, cut into those of each row."""
    return np.split(values, np.cumsum([row.num_supervised for row in examples])[:-1])


def decide(sample: Sequence[Example], logp: Sequence[np.ndarray]) -> Chosen:
    """The objective for rows with these log-probabilities of their tokens."""
    pairs = list(zip(sample, logp, strict=True))
    tags = sorted({tag for example in sample for tag in example.tags})
    by_tag = {tag: prior([p for e, p in pairs if tag in e.tags]) for tag in tags}
    overall = prior(logp)
    all_tagged = all(example.tags for example in sample)
    return Chosen(overall, by_tag, choose(overall, by_tag if all_tagged else None))


def prior(rows: Sequence[np.ndarray]) -> Prior:
    """How likely the tokens of some rows are, from their log-probabilities."""
    logp = np.concatenate(rows).astype(np.float64)
    return Prior(len(rows), len(logp), float(np.exp(logp).mean()), float(-logp.mean()))


def _report(found: Chosen, reporter: Reporter) -> None:
    overall = found.overall
    reporter.note(
        f"{overall.rows} rows, {overall.tokens} tokens under the base model: mean p "
        f"{overall.mean_p:.3f}, NLL {overall.nll:.2f} nats/token"
    )
    for tag, of_tag in found.by_tag.items():
        reporter.note(f"  tag {tag}: {of_tag.rows} rows, mean p {of_tag.mean_p:.3f}")
    reporter.note(f"objective {found.choice.objective}: {found.choice.reason}")
