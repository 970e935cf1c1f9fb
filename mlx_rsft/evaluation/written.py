"""Metrics of what greedy decoding wrote, beside what the row demonstrates."""

from __future__ import annotations

from collections.abc import Callable

from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.values import Values

PerRow = Callable[[Evidence], Values]
Judge = Callable[[str, str], float]
"""From an answer and the demonstrated one to a score, mostly 0 or 1."""


def exact() -> Judge:
    """The same text, white space at its ends aside."""
    return lambda answer, wanted: float(answer.strip() == wanted.strip())


def judged(judge: Judge) -> PerRow:
    """A metric out of what is said of one answer."""

    def per_row(known: Evidence) -> Values:
        pairs = zip(known.written, known.examples, strict=True)
        return Values([judge(answer.text, row.answer) for answer, row in pairs])

    return per_row


def generated_exact_match() -> PerRow:
    """Whether greedy decoding did write the row's answer."""
    return judged(exact())
