"""How far the answers of a product are from the live model's, in three figures.

A reader may know only some tokens at a place, so a divergence is taken over those and all
others as one. It is never larger than the whole one, and is cut alike for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.export.dense import likeliest
from mlx_rsft.export.reading import Row

Answers = Callable[[Row], Iterator[tuple[int, Mapping[int, float]]]]
LEAST = 1e-9
"""What all other tokens together have at least; a logarithm is taken of it."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows, and what the live model and its base answer.

    Attributes:
        expected: The live model's log-probabilities ``[places, V]`` of each row.
        effect: Of each row the divergence of the base model from the live one at each
            place, nats; empty if nobody asked.
    """

    rows: Sequence[Row]
    expected: Sequence[NDArray[np.float32]]
    effect: Sequence[NDArray[np.float64]] = ()


@dataclass(frozen=True, slots=True)
class Gaps:
    """What was found over all places, nats.

    Attributes:
        largest: Largest difference of log-probabilities of likely tokens; infinite if
            any is not a number.
        mean: Mean difference of the same.
        divergence: Mean KL divergence of the product from the live model, per place.
        lost: That as a share of the base model's, on bundled texts or on the user's
            rows, whichever is larger; None where the adapter changes nothing.
        greedy_agreement: Share of the live model's greedy tokens that it writes too;
            None where there are none.
        places: How many places were asked about.
    """

    largest: float
    mean: float
    divergence: float
    lost: float | None
    greedy_agreement: float | None
    places: int


@dataclass(slots=True)
class _Sums:
    apart: list[NDArray[np.float64]] = field(default_factory=list)
    divergence: dict[bool, list[float]] = field(default_factory=dict)
    effect: dict[bool, list[float]] = field(default_factory=dict)
    greedy: int = 0
    same: int = 0


def measure(answers: Answers, asked: Questions) -> Gaps:
    """Hold answers to all rows against the live model's."""
    sums = _Sums()
    for number, (row, expected) in enumerate(
        zip(asked.rows, asked.expected, strict=True)
    ):
        for place, seen in answers(row):
            here = place - row.start
            sums.apart.append(_apart(seen, expected[here]))
            gap = divergence(seen, expected[here])
            sums.divergence.setdefault(row.own, []).append(gap)
            if asked.effect:
                effect = float(asked.effect[number][here])
                sums.effect.setdefault(row.own, []).append(effect)
            if row.greedy:
                sums.same += max(seen, key=lambda t: seen[t]) == row.tokens[place]
        sums.greedy += len(row.tokens) - row.start if row.greedy else 0
    return _summed(sums)


def _summed(sums: _Sums) -> Gaps:
    apart = np.concatenate(sums.apart) if sums.apart else np.array([np.nan])
    gaps = [gap for group in sums.divergence.values() for gap in group]
    agreed = sums.same / sums.greedy if sums.greedy else None
    return Gaps(
        largest=_number(apart.max()),
        mean=_number(apart.mean()),
        divergence=_number(np.mean(gaps or [np.nan])),
        lost=_lost(sums),
        greedy_agreement=agreed,  # it may end each answer at once
        places=len(sums.apart),
    )


def _number(value: np.floating) -> float:
    return float(value) if np.isfinite(value) else float("inf")


def _lost(sums: _Sums) -> float | None:
    shares = [
        _number(np.mean(sums.divergence[own])) / float(np.mean(effect))
        for own, effect in sums.effect.items()
        if np.mean(effect) > 0
    ]
    return max(shares, default=None)


def effect(
    rows: Sequence[Row],
    expected: Sequence[NDArray[np.float32]],
    base: Callable[[Row], NDArray[np.float32]],
) -> list[NDArray[np.float64]]:
    """The divergence of the base model from the live one, row by row, at each place."""
    return [
        np.array(
            [
                divergence(seen, wanted[place - row.start])
                for place, seen in likeliest(row, base(row))
            ]
        )
        for row, wanted in zip(rows, expected, strict=True)
    ]


def divergence(seen: Mapping[int, float], expected: NDArray[np.float32]) -> float:
    """KL(live || seen) over the tokens that were seen and all others as one, nats."""
    wanted = _with_others(expected[list(seen)])
    found = _with_others(np.array(list(seen.values())))
    return float((np.exp(wanted) * (wanted - found)).sum())


def _with_others(known: NDArray[np.floating]) -> NDArray[np.float64]:
    whole = known.astype(np.float64)
    others = np.log(np.maximum(1 - np.exp(whole).sum(), LEAST))
    return np.append(whole, others)


def _apart(
    seen: Mapping[int, float], expected: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Differences at one place; infinite where one is not a number."""
    apart = np.abs(np.array(list(seen.values())) - expected[list(seen)])
    return np.where(np.isfinite(apart), apart, np.inf)
