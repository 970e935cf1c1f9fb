"""Before training: how likely the base model finds the demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import likelihood
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives.choose import Choice, Prior, choose
from mlx_rsft.workflows.reporter import Reporter

ROWS = 64
"""Rows to look at, and as many of each tag."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found, and what follows from it."""

    overall: Prior
    by_tag: dict[str, Prior]
    choice: Choice

    def as_record(self) -> dict[str, Any]:
        """The probe as it stands in the manifest."""
        return {
            **asdict(self.overall),
            "tags": {tag: asdict(prior) for tag, prior in self.by_tag.items()},
            **asdict(self.choice),
        }


def probe(
    split: SplitModel, examples: Sequence[Example], seed: int, reporter: Reporter
) -> Probe:
    """Score a sample of the training rows with the base model, and choose.

    Args:
        split: The model without an adapter.
        examples: The training rows.
        seed: Fixes the sample.
        reporter: Told the figures and the reason.
    """
    sample = _sample(examples, seed)
    with reporter.task("probe", len(sample)) as advance:
        scores = likelihood.score(split, sample, advance)
    pairs = list(zip(sample, scores, strict=True))
    tags = sorted({tag for example in sample for tag in example.tags})
    by_tag = {tag: _prior([s for e, s in pairs if tag in e.tags]) for tag in tags}
    overall = _prior(scores)
    all_tagged = all(example.tags for example in sample)
    found = Probe(overall, by_tag, choose(overall, by_tag if all_tagged else None))
    _report(found, reporter)
    return found


def _sample(examples: Sequence[Example], seed: int) -> list[Example]:
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    by_tag: dict[str, list[int]] = {}
    for place in order:
        for tag in examples[place].tags:
            by_tag.setdefault(tag, []).append(place)
    first = [order, *(by_tag[tag] for tag in sorted(by_tag))]
    chosen = dict.fromkeys(place for places in first for place in places[:ROWS])
    return [examples[place] for place in chosen]


def _prior(scores: Sequence[RowScore]) -> Prior:
    tokens = sum(score.tokens for score in scores)
    return Prior(
        rows=len(scores),
        tokens=tokens,
        mean_p=sum(score.probability for score in scores) / tokens,
        nll=sum(score.nll for score in scores) / tokens,
    )


def _report(found: Probe, reporter: Reporter) -> None:
    overall = found.overall
    reporter.note(
        f"{overall.rows} rows, {overall.tokens} tokens under the base model: mean p "
        f"{overall.mean_p:.3f}, NLL {overall.nll:.2f} nats/token"
    )
    for tag, prior in found.by_tag.items():
        reporter.note(f"  tag {tag}: {prior.rows} rows, mean p {prior.mean_p:.3f}")
    reporter.note(f"objective {found.choice.objective}: {found.choice.reason}")
