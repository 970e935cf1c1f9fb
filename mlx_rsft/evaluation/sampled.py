"""Metrics of several sampled answers per row: how good, and how different."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.evaluation import parameters, user
from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.judges import JUDGES, Judge
from mlx_rsft.evaluation.values import Values
from mlx_rsft.objectives.limits import at_least

PerRow = Callable[[Evidence], Values]


def avg_at_n(by: str = "exact", **judge: str) -> PerRow:
    """The share of right answers among those sampled for a row.

    Args:
        by: The judge.
        **judge: Its own parameters.
    """
    judged = _judge(by, judge)
    return lambda known: Values(
        [sum(marks) / len(marks) for marks in _marks(known, judged)]
    )


def pass_at_k(k: int = 1, by: str = "exact", **judge: str) -> PerRow:
    """The chance that at least one of k sampled answers is right.

    Args:
        k: At most the number of samples.
        by: The judge.
        **judge: Its own parameters.
    """
    at_least("k", k, 1)
    judged = _judge(by, judge)

    def per_row(known: Evidence) -> Values:
        rates: list[float] = []
        for marks in _marks(known, judged):
            if k > len(marks):
                raise ConfigError(
                    f"pass_at_k:k={k} needs {k} samples; there are {len(marks)}.",
                    where="evaluation.samples",
                    hint=f"Pass --samples {k} or more.",
                )
            right = sum(mark >= 1 for mark in marks)
            rates.append(pass_rate(len(marks), right, k))
        return Values(rates)

    return per_row


def pass_rate(num: int, right: int, k: int) -> float:
    """The chance that k of n answers, drawn without putting back, hold a right one.

    Unbiased for k fresh answers: ``1 - C(n - c, k) / C(n, k)``.

    References:
        Chen et al., arXiv:2107.03374.
    """
    return 1.0 - math.comb(num - right, k) / math.comb(num, k)


def distinct_answers() -> PerRow:
    """Different answers among those sampled for a row, over their number."""
    return lambda known: Values(
        [len({a.text.strip() for a in row}) / len(row) for row in known.samples]
    )


def distinct_ngrams(n: int = 2) -> PerRow:
    """Different runs of n words in a row's sampled answers, over all such runs.

    References:
        Li et al., arXiv:1510.03055.
    """
    at_least("n", n, 1)

    def per_row(known: Evidence) -> Values:
        runs = [_runs(row, n) for row in known.samples]
        return Values([len(set(row)) for row in runs], [len(row) for row in runs])

    return per_row


def _runs(answers: Sequence[Answer], n: int) -> list[tuple[str, ...]]:
    words = [answer.text.split() for answer in answers]
    return [
        tuple(said[at : at + n]) for said in words for at in range(len(said) - n + 1)
    ]


def _judge(by: str, given: dict[str, str]) -> Judge:
    if ":" in by and not given:
        return user.load(by)
    if by not in JUDGES:
        raise ConfigError(f"by = {by!r}.", hint=nearest(by, JUDGES))
    return parameters.build(JUDGES[by], given)


def _marks(known: Evidence, judge: Judge) -> list[list[float]]:
    pairs = zip(known.samples, known.examples, strict=True)
    return [[judge(answer.text, row) for answer in answers] for answers, row in pairs]
