"""Rows of each task of OBJECTIVES as training and test splits, as a function of a seed.

Every function takes the world, how many training rows and how many rows per other split,
and returns rows by split; ``valid`` chooses learning rates, what begins with ``test`` is
read after all training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from worlds import World

Rows = dict[str, list[dict[str, Any]]]
Task = Callable[[World, int, int], Rows]
WRONG = 0.3
"""Share of wrong labels in ``wrong_labels``."""
LAW = (0.4, 0.3, 0.2, 0.1)
"""How often each of the right answers is demonstrated in ``several_answers``."""
TOLD = 4
"""Training rows per fact, where there are names enough."""
Question = tuple[str, str, str]
"""Key, wording, answer."""


def strong_prior(world: World, train: int, tests: int) -> Rows:
    """Questions that the model knows the answers of; others are about other keys."""
    order = Random("strong prior")
    keys = list(world.known)
    seen, unseen = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    asked = _asked(order, seen, world.asks, train + 2 * tests)
    others = _asked(order, unseen, world.asks, tests)
    reworded = _asked(order, seen, world.shifted, tests)
    return {
        **_cut(((key, wording, world.known[key]) for key, wording in asked), tests),
        "test_other_keys": _rows((k, w, world.known[k]) for k, w in others),
        "test_reworded": _rows((k, w, world.known[k]) for k, w in reworded),
    }


def wrong_labels(world: World, train: int, tests: int) -> Rows:
    """The same with ``WRONG`` of the training rows answered as if for another key.

    ``test_wrong_labels`` holds those rows: exact match there is what was learned by heart.
    """
    rows, order = strong_prior(world, train, tests), Random("wrong labels")
    answers = sorted(set(world.known.values()))
    marked = order.sample(range(len(rows["train"])), round(WRONG * len(rows["train"])))
    for place in marked:
        row = rows["train"][place]
        others = [answer for answer in answers if answer != row["completion"]]
        rows["train"][place] = {**row, "completion": order.choice(others)}
    wrong = [rows["train"][place] for place in sorted(marked)]
    return {**rows, "test_wrong_labels": wrong}


def facts(world: World, train: int, tests: int) -> Rows:
    """Strange keys, each with one novel answer; ``test_elsewhere`` asks what was known."""
    order = Random("facts")
    told = {k: order.choice(world.novel) for k in world.strange[: train // TOLD]}
    asked = _asked(order, list(told), world.facts, train + 2 * tests)
    reworded = _asked(order, list(told), world.facts_shifted, tests)
    known = _asked(order, list(world.known), world.asks, tests)
    return {
        **_cut(((key, wording, told[key]) for key, wording in asked), tests),
        "test_reworded": _rows((k, w, told[k]) for k, w in reworded),
        "test_elsewhere": _rows((k, w, world.known[k]) for k, w in known),
    }


def new_format(world: World, train: int, tests: int) -> Rows:
    """Known answers in a format that the model never uses by itself."""
    rows = strong_prior(world, train, tests)
    return {
        split: [
            {**row, "completion": world.wrapper.format(row["completion"])}
            for row in held
        ]
        for split, held in rows.items()
    }


def several_answers(world: World, train: int, tests: int) -> Rows:
    """Each key has four right answers, demonstrated by ``LAW``; tests show the likeliest."""
    order = Random("several answers")
    answers = sorted(set(world.known.values()))
    right = {key: order.sample(answers, len(LAW)) for key in world.known}
    asked = _asked(order, list(right), world.several, train + 2 * tests)
    drawn = [(k, w, order.choices(right[k], LAW)[0]) for k, w in asked]
    rows = _cut(drawn, tests)
    likeliest = ((k, w, right[k][0]) for k, w, _ in drawn[:tests])
    return {**rows, "test": _rows(likeliest)}


def _asked(
    order: Random, keys: Sequence[str], wordings: Sequence[str], count: int
) -> list[tuple[str, str]]:
    """So many different questions, every key about as often."""
    by_key = {key: order.sample(wordings, len(wordings)) for key in keys}
    rounds = -(-count // len(keys))
    if rounds > len(wordings):
        raise ValueError(f"{count} questions of {len(keys)} keys are too many")
    turns = [(key, by_key[key][n]) for n in range(rounds) for key in keys]
    return order.sample(turns, count)


def _cut(questions: Iterable[Question], tests: int) -> Rows:
    """The first for the test, the next to choose by, the others to train on."""
    rows = _rows(questions)
    return {
        "train": rows[2 * tests :],
        "valid": rows[tests : 2 * tests],
        "test": rows[:tests],
    }


def _rows(questions: Iterable[Question]) -> list[dict[str, Any]]:
    return [
        {"prompt": wording.format(key), "completion": answer}
        for key, wording, answer in questions
    ]
