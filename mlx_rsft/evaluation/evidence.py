"""What metrics are computed from: gathered once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.evaluation.moved import Moved

WRITTEN, SAMPLES, ENTROPY, OPTIONS, BASE = (
    "answers",
    "samples",
    "entropy",
    "options",
    "base",
)
"""What a metric may ask for beyond the one pass that all of them share."""

Options = Sequence[Sequence[str]]
"""Answers to choose from, for each row."""


def _no_model(options: Options) -> Sequence[Sequence[RowScore]]:
    raise AssertionError(f"no model is at hand to score {len(options)} rows")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One entry per row, in order; what no metric asked for is empty.

    Attributes:
        written: Greedy answers.
        samples: Sampled answers, equally many for each row.
        moved: How far the model is from its base.
        score_options: Scores other last turns of each row.
    """

    examples: Sequence[Example]
    scores: Sequence[RowScore]
    written: Sequence[Answer] = ()
    samples: Sequence[Sequence[Answer]] = ()
    moved: Sequence[Moved] = ()
    score_options: Callable[[Options], Sequence[Sequence[RowScore]]] = _no_model
