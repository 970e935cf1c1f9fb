"""What a search tries: a grid of objectives and learning rates, and how long each runs.

Successive halving (arXiv:1502.07943): all trials run briefly, the best share of them runs
longer, and so on. Every rung trains from the start, because the learning rate falls to
its end within a run: a short run is no beginning of a long one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.objectives import Objective, build

ARMS = (
    "sft",
    "power:alpha=0.25",
    "power:alpha=0.5",
    "dft:floor=0.1",
    "dft:floor=0.3",
    "dft:floor=0.1,anchor=k3",
    "dft:floor=0.1,anchor=kl",
    "dft:schedule=staged,until=0.3",
    "dft:floor=0.1,schedule=ramp,until=0.2",
)
"""Strength, floor, anchor and schedule around the forms that are recommended."""
ETA = 3
FEWEST_STEPS = 5
"""A shorter run shows how fast an objective starts and nothing else."""
PLAIN = "sft"


@dataclass(frozen=True, slots=True)
class Trial:
    """One objective at one learning rate."""

    arm: str
    learning_rate: float

    def __str__(self) -> str:
        return f"{self.arm} at {self.learning_rate:g}"


@dataclass(frozen=True, slots=True)
class Rung:
    """So many trials, so many steps each."""

    trials: int
    steps: int


def grid(
    arms: Sequence[str], rates: Sequence[float], most: int, seed: int
) -> list[Trial]:
    """Every objective at every rate, in one order however they were given.

    Args:
        arms: Names of objectives.
        rates: Learning rates.
        most: Trials at most, drawn by the seed; 0: all.
        seed: Decides the draw.
    """
    found = {Trial(arm, rate) for arm in arms for rate in rates}
    trials = sorted(found, key=lambda trial: (trial.arm, trial.learning_rate))
    if not most or most >= len(trials):
        return trials
    places = np.random.default_rng(seed).permutation(len(trials))[:most]
    return [trials[int(place)] for place in sorted(places)]


def rungs(num_trials: int, num_steps: int, eta: int) -> list[Rung]:
    """The plan: at each rung a share of the trials, and ``eta`` times the steps.

    There are as many rungs as leave a trial for the last one, whose runs are as long
    as the settings say, and give a first one that is not too short.
    """
    count = 1
    while eta**count <= num_trials and num_steps >= FEWEST_STEPS * eta**count:
        count += 1
    return [
        Rung(
            num_trials // eta**place, math.ceil(num_steps / eta ** (count - 1 - place))
        )
        for place in range(count)
    ]


def read_rates(text: str) -> tuple[float, ...]:
    """The learning rates of ``1e-4,1e-3``.

    Raises:
        ConfigError: If one is no number above 0.
    """
    problems: list[RsftError] = []
    rates: list[float] = []
    for part in text.split(","):
        try:
            rate = float(part)
        except ValueError:
            rate = math.nan
        if not (0 < rate < math.inf):
            said = f"{part.strip()!r} is no learning rate."
            hint = "Write them like 1e-4,3e-4,1e-3."
            problems.append(ConfigError(said, where="--learning-rates", hint=hint))
        rates.append(rate)
    raise_together(problems)
    return tuple(rates)


def for_tag(objectives: Mapping[str, Objective], tag: str) -> dict[str, Objective]:
    """The objectives, each only on rows with the tag; the other rows get plain SFT.

    Raises:
        ConfigError: If one names tags already.
    """
    found: dict[str, Objective] = {}
    problems: list[RsftError] = []
    for name, objective in objectives.items():
        if objective.composition.where:
            said = f"{name!r} names tags already; a search per tag sets them."
            problems.append(ConfigError(said, where="--arm"))
            continue
        plain = name == PLAIN  # the same for any rows
        table = {**objective.as_table(), **({} if plain else {"where": [tag]})}
        made = build(table)
        found[str(made)] = made
    raise_together(problems)
    return found
