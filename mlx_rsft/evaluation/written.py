"""Metrics of what greedy decoding wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.judges import Judge
from mlx_rsft.evaluation.values import Values

PerRow = Callable[[Evidence], Values]
P = ParamSpec("P")


def judged(judge: Judge) -> PerRow:
    """A metric out of what is said of one answer."""

    def per_row(known: Evidence) -> Values:
        pairs = zip(known.written, known.examples, strict=True)
        return Values([judge(answer.text, row) for answer, row in pairs])

    return per_row


def by(factory: Callable[P, Judge]) -> Callable[P, PerRow]:
    """The factory of a metric, from that of a judge and with its parameters."""

    @functools.wraps(factory)
    def made(*positional: P.args, **named: P.kwargs) -> PerRow:
        return judged(factory(*positional, **named))

    return made


def length_ratio() -> PerRow:
    """Tokens written, over tokens of the demonstrated last turn."""

    def per_row(known: Evidence) -> Values:
        shown = [
            stop - start - 1 for start, stop in (e.spans[-1] for e in known.examples)
        ]
        return Values([answer.tokens for answer in known.written], shown)

    return per_row


def end_of_turn() -> PerRow:
    """Whether the model ended its answer, rather than being cut at the limit."""
    return lambda known: Values([float(answer.ended) for answer in known.written])
