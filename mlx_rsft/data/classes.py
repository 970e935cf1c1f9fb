"""What each supervised token is: content of the answer, its form, or its end.

The form is what the answers have in common: special tokens, and pairs of neighbouring
tokens that stand in nine of ten answers equally often, such as the keys of a JSON object
or the words of a fixed phrase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from mlx_rsft.data.conversation import Example

CONTENT, TEMPLATE, END = "content", "template", "end"
CLASSES = (CONTENT, TEMPLATE, END)
COMMON = 0.9
"""Share of the answers that a pair stands in to be part of their form."""
LEAST_ANSWERS = 8
"""Fewer answers have all sorts of things in common by chance."""

Pair = tuple[int, int]


def classify(
    examples: Sequence[Example], ends: Collection[int], special: Collection[int]
) -> np.ndarray:
    """The class of every supervised token, as its place in ``CLASSES``; in order.

    Args:
        examples: The rows; their answers are compared with each other.
        ends: Ids of end-of-turn tokens.
        special: Ids of the tokenizer's special tokens.
    """
    answers = [
        (example.tokens, start, end)
        for example in examples
        for start, end in example.spans
    ]
    form = _form([Counter(_pairs(*answer)) for answer in answers])
    found: list[int] = []
    for tokens, start, end in answers:
        for place in range(start, end):
            before = (tokens[place - 1], tokens[place])
            after = (tokens[place], tokens[place + 1]) if place + 1 < end else None
            shared = before in form or after in form or tokens[place] in special
            kind = END if tokens[place] in ends else TEMPLATE if shared else CONTENT
            found.append(CLASSES.index(kind))
    return np.array(found)


def _pairs(tokens: Sequence[int], start: int, end: int) -> Iterator[Pair]:
    return ((tokens[at - 1], tokens[at]) for at in range(start, end))


def _form(answers: Sequence[Counter[Pair]]) -> frozenset[Pair]:
    """The pairs that stand in nearly all answers, in each as often as in the others."""
    if len(answers) < LEAST_ANSWERS:
        return frozenset()
    seen = Counter(item for answer in answers for item in answer.items())
    least = COMMON * len(answers)
    return frozenset(pair for (pair, _), count in seen.items() if count >= least)
