"""Which rows ask alike, and whether their answers contradict each other.

Texts are compared as sets of tokens, each weighing the logarithm of how rare it is: two
rows are alike by the cosine of those weights, in [0, 1]. What stands in every text, such
as an instruction or the form of the answer, weighs nothing. N rows.

References:
    Sparck Jones, Journal of Documentation, 1972 (inverse document frequency).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
"""Rows that each row is compared with."""
TWICE = 2.0
"""How much more backing another answer has where a row counts as contradicted."""
CONTRADICTIONS_WEIGH = 3.0
"""Times that contradiction counts over surprise in ``doubt``; both standardised."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the neighbours make of each row's answer.

    Attributes:
        contradiction: (N,) 0: the nearest rows answer alike; 1: nothing in common.
            Not a number for a row that is like no other.
        spokesman: (N,) the neighbour whose answer has most in common with all of theirs;
            the row itself if it is like no other.
        backing: (N,) what that answer has in common with theirs, 0 to 1; the row's own
            has ``1 - contradiction``.
        answers_alike: (N, N) how alike two rows' answers are.
    """

    contradiction: np.ndarray
    spokesman: np.ndarray
    backing: np.ndarray
    answers_alike: np.ndarray

    @property
    def contradicted(self) -> np.ndarray:
        """(N,) whether another answer has more than ``TWICE`` the backing."""
        own = np.where(np.isnan(self.contradiction), np.inf, 1 - self.contradiction)
        return self.backing > TWICE * own


def alike(texts: Sequence[Sequence[int]]) -> np.ndarray:
    """(N, N) how alike each two texts are, 0 to 1; equal texts are 1."""
    kinds = [frozenset(text) for text in texts]
    held_by = Counter(token for kind in kinds for token in kind)
    place = {
        token: column
        for column, token in enumerate(
            token for token, count in held_by.items() if 1 < count < len(kinds)
        )
    }
    weights = np.zeros((len(kinds), max(1, len(place))), np.float32)
    for row, kind in enumerate(kinds):
        for token in kind & place.keys():
            weights[row, place[token]] = np.log(len(kinds) / held_by[token])
    length = np.linalg.norm(weights, axis=1, keepdims=True)
    cosine = np.clip((weights / np.maximum(length, 1e-9)) @ weights.T, 0, None)
    cosine = np.clip(cosine / np.maximum(length.T, 1e-9), 0, 1)
    number = {kind: n for n, kind in enumerate(dict.fromkeys(kinds))}
    ids = np.array([number[kind] for kind in kinds])
    return np.where(ids[:, None] == ids, 1.0, cosine)


def judge(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    num_neighbours: int = NEIGHBOURS,
) -> Judged:
    """Compare each row's answer with those of the rows whose prompts are most alike.

    A neighbour counts by the square of how alike its prompt is.
    """
    near = alike(prompts)
    np.fill_diagonal(near, -1)
    said = alike(answers)
    count = min(num_neighbours, len(prompts) - 1)
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :count]
    say = np.square(np.clip(np.take_along_axis(near, nearest, axis=1), 0, None))
    agree = (say * np.take_along_axis(said, nearest, axis=1)).sum(axis=1)
    total = say.sum(axis=1)
    contradiction = np.full(len(prompts), np.nan)
    heard = total > 0
    contradiction[heard] = np.clip(1 - agree[heard] / total[heard], 0, 1)
    spokesman, backing = np.arange(len(prompts)), np.zeros(len(prompts))
    for row, (places, voices) in enumerate(zip(nearest, say, strict=True)):
        if total[row] > 0:
            backed = said[np.ix_(places, places)] @ voices / total[row]
            spokesman[row] = places[int(np.argmax(backed))]
            backing[row] = backed.max()
    return Judged(contradiction, spokesman, backing, said)


def surprise(nll: np.ndarray, answers_alike: np.ndarray) -> np.ndarray:
    """(N,) NLL of each answer above that of similar answers to other prompts.

    So that an answer is not suspect for being rare everywhere. Where no answer is
    similar, it is the NLL above the mean.

    Args:
        nll: (N,) nats per token.
        answers_alike: (N, N) as ``Judged`` has it.
    """
    others = answers_alike.copy()
    np.fill_diagonal(others, 0)
    expected = (others @ nll + nll.mean()) / (others.sum(axis=1) + 1)
    return nll - expected


def doubt(contradiction: np.ndarray, surprised: np.ndarray) -> np.ndarray:
    """(N,) how much speaks against each answer; no unit, higher is worse."""
    known = np.where(np.isnan(contradiction), np.nanmean(contradiction), contradiction)
    return CONTRADICTIONS_WEIGH * _standard(known) + _standard(surprised)


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
