"""Blind comparison of two models' answers: which to show where, and what raters said.

Of two models, ``adapter`` is the one that is asked about and ``against`` the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_rsft import stats

OURS, THEIRS = "adapter", "against"
SIDES = 0xB11D
"""Keeps the random numbers of a sheet apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question, side by side.

    Attributes:
        where: ``file:line`` of the row.
        a: Which model wrote the first answer, ``adapter`` or ``against``.
    """

    number: int
    split: str
    where: str
    question: str
    demonstrated: str
    answer_a: str
    answer_b: str
    a: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One row that both models answered."""

    split: str
    where: str
    question: str
    demonstrated: str
    ours: str
    theirs: str


def blind(samples: Sequence[Sample], most: int, seed: int) -> list[Pair]:
    """At most ``most`` pairs that differ, in a random order and on random sides."""
    rng = np.random.default_rng([seed, SIDES])
    differing = [s for s in samples if s.ours.strip() != s.theirs.strip()]
    order = rng.permutation(len(differing))[:most].tolist()
    first = rng.permutation([n % 2 == 0 for n in range(len(order))]).tolist()
    pairs: list[Pair] = []
    for number, (place, ours_first) in enumerate(zip(order, first, strict=True), 1):
        row = differing[place]
        both = (row.ours, row.theirs) if ours_first else (row.theirs, row.ours)
        side = OURS if ours_first else THEIRS
        pairs.append(
            Pair(
                number,
                row.split,
                row.where,
                row.question,
                row.demonstrated,
                *both,
                side,
            )
        )
    return pairs


@dataclass(frozen=True, slots=True)
class Verdict:
    """What raters said of the pairs, unblinded.

    Where several raters saw a pair, the majority of them counts. Pairs that they found
    equal, or split evenly on, are ties and say nothing about which model is better.
    """

    wins: int
    losses: int
    ties: int

    def as_record(self) -> dict[str, Any]:
        """Counts, the share of wins with its interval, and the sign test's p value."""
        decided = [True] * self.wins + [False] * self.losses
        return {
            "rated": self.wins + self.losses + self.ties,
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            "win_share": stats.proportion(decided).as_record() if decided else None,
            "p_value": stats.sign_test(self.wins, self.losses),
        }


def unblind(marks: Sequence[tuple[int, str]], sides: Mapping[int, str]) -> Verdict:
    """Count marks ``(pair, "A", "B" or "=")`` for the models behind them.

    Args:
        marks: Of all raters.
        sides: Which model wrote the first answer of each pair.
    """
    balance: dict[int, int] = {}
    for number, mark in marks:
        said = {"A": 1, "B": -1, "=": 0}[mark]
        sign = 1 if sides[number] == OURS else -1
        balance[number] = balance.get(number, 0) + sign * said
    signs = [(score > 0) - (score < 0) for score in balance.values()]
    return Verdict(signs.count(1), signs.count(-1), signs.count(0))
