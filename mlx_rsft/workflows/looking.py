"""One pass of the base model over a sample of rows, and what each token is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_rsft.data.classes import classify
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import tokenwise
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Known, Objective, TokenStats
from mlx_rsft.training.known import beforehand
from mlx_rsft.workflows import assemble, choosing
from mlx_rsft.workflows.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Looked:
    """What one pass found, before anything is made of it. N supervised tokens.

    Attributes:
        rows: The sample.
        num_rows: Rows there are.
        stats: Facts of its tokens.
        kinds: (N,) the class of each, as its place in ``CLASSES``.
        tokenizer: Of the model.
    """

    rows: Sequence[Example]
    num_rows: int
    stats: TokenStats
    kinds: np.ndarray
    tokenizer: Any

    @property
    def p(self) -> np.ndarray:
        """(N,) probability of each supervised token."""
        return np.exp(np.array(self.stats.logp, np.float64))

    @property
    def by_row(self) -> list[np.ndarray]:
        """The log-probabilities of each row."""
        return choosing.by_row(self.rows, np.array(self.stats.logp))


def look(
    split: SplitModel,
    rows: Sequence[Example],
    num_rows: int,
    facts: frozenset[str],
    tokenizer: Any,
    reporter: Reporter,
) -> Looked:
    """Read a sample.

    Args:
        split: The model without an adapter.
        rows: The sample.
        num_rows: Rows there are.
        facts: What to ask the head for beside the log-probability.
        tokenizer: Of the model.
        reporter: Told how far it is.
    """
    with reporter.task("probe", len(rows)) as advance:
        stats = tokenwise.read(split, rows, sorted(facts), advance)
    kinds = classify(rows, tokenizer.eos_token_ids, tokenizer.all_special_ids)
    return Looked(rows, num_rows, stats, kinds, tokenizer)


def known(looked: Looked, objective: Objective) -> Known:
    """What an objective is told of the sample's tokens, all of them as one step."""
    composition = objective.composition
    kept = assemble.kept(composition.keep, looked.tokenizer)
    return beforehand(looked.rows, range(len(looked.rows)), composition, kept)
