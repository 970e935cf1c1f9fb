"""What questions and answers are made of: letters for the tiny model, words for others.

A *known* key has an answer that the model gives by itself, a *strange* one none; *novel*
answers are ones that it would never give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random


@dataclass(frozen=True, slots=True)
class World:
    """Keys, answers and wordings; ``{}`` stands for the key, or for an answer.

    Attributes:
        known: The right answer of each key that the model knows.
        strange: Keys it has never met.
        novel: Answers it would never give.
        asks: Wordings of a question about a known key, for training.
        shifted: Other wordings.
        facts: Wordings about a strange key, for training.
        facts_shifted: Other wordings.
        several: Wordings of a question that has several right answers.
        wrapper: A format that the model does not use by itself.
    """

    known: Mapping[str, str]
    strange: Sequence[str]
    novel: Sequence[str]
    asks: Sequence[str]
    shifted: Sequence[str]
    facts: Sequence[str]
    facts_shifted: Sequence[str]
    several: Sequence[str]
    wrapper: str


def _letters() -> World:
    """A key of one letter and two digits that say nothing; an answer of one letter."""
    order = Random("letters")
    asks = [f"{{}}{n:02}" for n in range(50)]
    shifted = [f"{{}}{n:02}" for n in range(50, 100)]
    return World(
        known={key: order.choice("ABCDEFGH") for key in "abcdefghijklmnopqrstuvwx"},
        strange="IJKLMNOPQRSTUVWXYZ",
        novel="qrstuvwxyz",
        asks=asks,
        shifted=shifted,
        facts=asks,
        facts_shifted=shifted,
        several=asks,
        wrapper="[{}]",
    )


PARTS = """
bearing bolt brake bucket cable camera clamp cooler door engine fan filter fuse gauge gear
glass handle hose ladder lamp lever lock mirror motor paint panel pedal pin pipe plug pump
radio roller seal seat sensor shaft shelf spring switch tank tooth tyre valve washer wheel
window wire
"""
SYLLABLES = tuple(a + b for a, b in product("bdfgklmnprstvz", "aeiou"))


def _words() -> World:
    """A part's name to be repeated; a ticket's number in front says nothing."""
    order = Random("words")
    names = ["".join(order.sample(SYLLABLES, 3)).title() for _ in range(240)]
    codes = ["".join(order.sample(SYLLABLES, 2)) for _ in range(60)]

    def asked(*wordings: str) -> list[str]:
        return [
            f"Ticket {100 + 7 * n}. {wording}"
            for n in range(50)
            for wording in wordings
        ]

    return World(
        known={word: word for word in PARTS.split()},
        strange=names,
        novel=codes,
        asks=asked("Repeat this word: {}", "Repeat the word {}"),
        shifted=asked("Say this word again, please: {}"),
        facts=asked("Which code has machine {}?", "Tell me the code of machine {}."),
        facts_shifted=asked("Machine {} stands still. Its code is"),
        several=asked("Which part wears out next to the {}?"),
        wrapper="<<{}>>",
    )


LETTERS, PLAIN_WORDS = _letters(), _words()
