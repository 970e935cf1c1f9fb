"""What metrics are computed from: gathered once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.generate import Answer, Sampling
from mlx_rsft.evaluation.likelihood import RowScore

WRITTEN, SAMPLES, ENTROPY = "answers", "samples", "entropy"
"""What a metric may ask for beyond the one pass that all of them share."""

__all__ = ["ENTROPY", "SAMPLES", "WRITTEN", "Evidence", "Sampling"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One entry per row, in order; what no metric asked for is empty.

    Attributes:
        written: Greedy answers.
        samples: Sampled answers, equally many for each row.
    """

    examples: Sequence[Example]
    scores: Sequence[RowScore]
    written: Sequence[Answer] = ()
    samples: Sequence[Sequence[Answer]] = ()
