"""The sizes in which the experiments are run: which model, how many rows, how long.

T0 is the tiny model, made in place; T1 the two real models on a laptop; T2 the same
files with more of everything, for a graphics card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worlds import LETTERS, PLAIN_WORDS, World

READER = "reader"
"""The tiny model, which ``reader`` makes."""
FROZEN: Mapping[str, object] = {"adapter.layers": "last:4", "adapter.rank": 16}


@dataclass(frozen=True, slots=True)
class Tier:
    """One model at one size.

    Attributes:
        label: Names its folder and its rows in tables.
        train: Training rows.
        tests: Rows of every other split.
        rate: Learning rate; every arm chooses among a third, one and three of it.
        settings: Of every run, by full key.
        only: Experiments that it is for; none: all of them.
    """

    label: str
    model: str
    world: World
    seeds: int
    train: int
    tests: int
    rate: float
    settings: Mapping[str, object]
    only: Sequence[str] = ()


TIERS: dict[str, tuple[Tier, ...]] = {
    "T0": (
        Tier(
            label="tiny",
            model=READER,
            world=LETTERS,
            seeds=5,
            train=192,
            tests=64,
            rate=3e-3,
            settings={
                "adapter.layers": "all",
                "training.batch_size": 16,
                "training.trunk_cache": "off",
                "evaluation.max_tokens": 4,
                "evaluation.samples": 16,
            },
        ),
    ),
    "T1": (
        Tier(
            label="SmolLM2-135M",
            model="demo",
            world=PLAIN_WORDS,
            seeds=3,
            train=160,
            tests=48,
            rate=1e-3,
            settings={
                **FROZEN,
                "training.batch_size": 8,
                "evaluation.max_tokens": 12,
                "evaluation.samples": 4,
            },
        ),
        Tier(
            label="Gemma-3-270M",
            model="demo-gemma",
            world=PLAIN_WORDS,
            seeds=3,
            train=160,
            tests=48,
            rate=1e-3,
            settings={
                **FROZEN,
                "data.template": "plain",
                "training.batch_size": 8,
                "evaluation.max_tokens": 12,
            },
            only=("H2", "H5"),
        ),
    ),
    "T2": (
        Tier(
            label="SmolLM2-135M, all blocks",
            model="demo",
            world=PLAIN_WORDS,
            seeds=5,
            train=960,
            tests=512,
            rate=1e-3,
            settings={
                "adapter.layers": "all",
                "adapter.rank": 16,
                "training.batch_size": 32,
                "evaluation.max_tokens": 12,
                "evaluation.samples": 16,
            },
        ),
    ),
}


def of(size: str, name: str, label: str | None = None) -> list[Tier]:
    """The models that an experiment is tried on at a size, or the one of that label."""
    return [
        tier
        for tier in TIERS[size]
        if (not tier.only or name in tier.only) and label in {None, tier.label}
    ]
