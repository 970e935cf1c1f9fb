"""How much of a comparison fits into so many seconds: which arms, seeds and steps.

Where not all of it fits, it is made smaller in one order, which ``ORDER`` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

ENOUGH_STEPS = 60
"""Steps that are not given up for another arm or seed."""
LEAST_STEPS = 20
"""A shorter run shows how fast an objective starts and nothing else."""
SEEDS = (5, 3, 1)
"""Never two: their spread has one degree of freedom, and intervals show nothing."""
FEWEST_ARMS = 2
ORDER = (
    f"steps down to {ENOUGH_STEPS}, then {SEEDS[1]} seeds, then arms from the last one "
    f"down to {FEWEST_ARMS}, then one seed, then steps down to {LEAST_STEPS}"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that each kind of work takes on this machine, by trying it.

    Attributes:
        load: Loading model and rows.
        fill: What frozen blocks make of a row, the first time; 0 where it is not kept.
        step: An optimizer step, by arm.
        score: A row, what frozen blocks make of it being known.
        side: The look at side effects of one arm; the bare model's takes as long.
        ending: Writing the report, exporting the winner and reading it back.
    """

    load: float
    fill: float
    step: Mapping[str, float]
    score: float
    side: float
    ending: float


@dataclass(frozen=True, slots=True)
class Work:
    """What is there to be done, whatever the size.

    Attributes:
        known: Rows that the bare model is scored on before any training.
        valid: Rows of the valid split, looked at so many times a run.
        tests: Rows of all test splits.
    """

    train: int
    batch: int
    known: int
    valid: int
    looks: int
    tests: int


@dataclass(frozen=True, slots=True)
class Size:
    """What is compared: the first arm is the baseline."""

    arms: tuple[str, ...]
    seeds: int
    steps: int

    @property
    def runs(self) -> int:
        return len(self.arms) * self.seeds


def seconds(size: Size, work: Work, pace: Pace) -> float:
    """How long a comparison of this size takes, from loading to the exported winner."""
    touched = min(work.train, size.seeds * size.steps * work.batch)
    looked = min(work.looks, size.steps) * work.valid
    scored = work.known + work.tests + size.runs * (work.tests + looked)
    return (
        pace.load
        + pace.fill * (touched + work.valid + work.tests)
        + size.seeds * size.steps * sum(pace.step[arm] for arm in size.arms)
        + pace.score * scored
        + pace.side * (len(size.arms) + 1)
        + pace.ending
    )


def levels(arms: Sequence[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Arms and seeds, the most wanted first."""
    most, usual, fewest = SEEDS
    yield tuple(arms), most
    for count in range(len(arms), FEWEST_ARMS - 1, -1):
        yield tuple(arms[:count]), usual
    yield tuple(arms[:FEWEST_ARMS]), fewest


def smallest(arms: Sequence[str], wanted: int) -> Size:
    """The smallest comparison that is worth its time."""
    *_, (few, seeds) = levels(arms)
    return Size(few, seeds, min(wanted, LEAST_STEPS))


def choose(
    arms: Sequence[str], wanted: int, work: Work, pace: Pace, most_s: float
) -> Size | None:
    """The most wanted size that fits; None if not even the smallest does.

    Args:
        arms: The baseline, then the others by how much they are wanted; two or more.
        wanted: Steps of a run, if there is time for them.
        work: What there is to be done.
        pace: How fast it is done here.
        most_s: Seconds there are.
    """
    last = smallest(arms, wanted)
    for some, seeds in levels(arms):
        final = (some, seeds) == (last.arms, last.seeds)
        least = last.steps if final else min(wanted, ENOUGH_STEPS)
        for steps in range(wanted, least - 1, -1):
            size = Size(some, seeds, steps)
            if seconds(size, work, pace) <= most_s:
                return size
    return None
