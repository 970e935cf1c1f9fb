"""What metrics are computed from: gathered once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.likelihood import RowScore

WRITTEN = "answers"
"""What a metric may ask for beyond the one pass that all of them share."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One entry per row, in order; what no metric asked for is empty.

    Attributes:
        written: Greedy answers.
    """

    examples: Sequence[Example]
    scores: Sequence[RowScore]
    written: Sequence[Answer] = ()
