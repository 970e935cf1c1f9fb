"""What goes with any objective: floor, anchor, schedule, normaliser, where it applies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.objectives.anchored import kl, with_k3
from mlx_rsft.objectives.limits import at_least, between
from mlx_rsft.objectives.power import with_floor
from mlx_rsft.objectives.tokens import (
    REFERENCE,
    Pull,
    TokenStats,
    TokenWeight,
)

ANCHORS = {"none": 0.0, "kl": 0.05, "k3": 0.01}
"""Anchors and the strength each has unless ``lambda`` says otherwise."""
SCHEDULES = ("constant", "ramp", "staged")
NORMALISERS = ("token", "weight", "sequence")
KEPT = ("none", "end", "special")


def _choice(default: str, choices: tuple[str, ...], about: str) -> Any:
    return field(default=default, metadata={"choices": choices, "about": about})


def _number(default: float, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, slots=True)
class Composition:
    """Parameters that every objective takes beside its own."""

    floor: float = _number(0.0, "least weight of any token")
    anchor: str = _choice("none", tuple(ANCHORS), "pull towards the base model")
    strength: float = _number(-1.0, "strength of the anchor; written lambda")
    schedule: str = _choice("constant", SCHEDULES, "ramp or staged: plain SFT at first")
    until: float = _number(0.5, "share of the steps until the schedule is done")
    normalise: str = _choice(
        "token", NORMALISERS, "divide by tokens, by weights, or rows alike"
    )
    where: tuple[str, ...] = field(
        default=(), metadata={"about": "tags of the rows it applies to; others SFT"}
    )
    keep: str = _choice("none", KEPT, "tokens that keep weight 1: end of turn, special")

    def switched_in(self, done: float) -> float:
        """How far the objective is in force after a share ``done`` of the steps.

        0 is plain SFT, 1 the objective alone.
        """
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "staged":
            return float(done >= self.until)
        return min(1.0, done / self.until) if self.until else 1.0

    def weigh(self, gate: TokenWeight) -> TokenWeight:
        """The weight of a gate under everything that is composed with it."""
        held = with_floor(gate, self.floor)
        if self.anchor == "k3":
            held = with_k3(held, self._strength)

        def weight(stats: TokenStats) -> mx.array:
            known = stats.known
            full = held(stats)
            full = full if known.strength == 1 else 1 + known.strength * (full - 1)
            full = full if known.plain is None else mx.where(known.plain, 1.0, full)
            return full.astype(stats.logp.dtype)

        return weight

    def pulls(self) -> tuple[Pull, ...]:
        """The pulls that the anchor adds."""
        strong = self.anchor == "kl" and self._strength > 0
        return (kl(self._strength),) if strong else ()

    def needs(self) -> frozenset[str]:
        """What the composition asks for beyond what the gate does."""
        k3 = self.anchor == "k3" and self._strength > 0
        return frozenset({REFERENCE} if k3 else ())

    @property
    def _strength(self) -> float:
        return ANCHORS[self.anchor] if self.strength < 0 else self.strength


ALIASES = {"lambda": "strength"}
NAMES = tuple(
    next((alias for alias, name in ALIASES.items() if name == item.name), item.name)
    for item in dataclasses.fields(Composition)
)


def compose(given: Mapping[str, object]) -> Composition:
    """The composition that these parameters describe.

    Raises:
        ConfigError: For a value of the wrong type or out of range, or a parameter
            that would have no effect.
    """
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Composition):
        alias = next((a for a, name in ALIASES.items() if name == item.name), item.name)
        if alias in given:
            values[item.name] = _typed(alias, given[alias], item)
    made = Composition(**values)
    between("floor", made.floor, 0, 1)
    between("until", made.until, 0, 1)
    if "strength" in values:
        at_least("lambda", made.strength, 0)
    _refuse_idle("lambda", "strength" in values, made.anchor != "none", "an anchor")
    _refuse_idle("until", "until" in values, made.schedule != "constant", "a schedule")
    if made.anchor == "k3" and made.normalise == "weight":
        raise ConfigError(
            "anchor=k3 with normalise=weight: its weights can add up to nothing.",
            hint="Use normalise=token, or anchor=kl.",
        )
    return made


def _refuse_idle(name: str, given: bool, used: bool, wanted: str) -> None:
    if given and not used:
        raise ConfigError(f"{name} does nothing without {wanted}.")


def _typed(name: str, value: object, item: dataclasses.Field[Any]) -> object:
    if "choices" in item.metadata:
        if value not in item.metadata["choices"]:
            raise ConfigError(
                f"{name} = {value!r}.",
                hint=nearest(str(value), item.metadata["choices"]),
            )
        return value
    if item.name == "where":
        tags = value.split("+") if isinstance(value, str) else value
        if isinstance(tags, list | tuple) and all(
            isinstance(t, str) and t for t in tags
        ):
            return tuple(tags)
        raise ConfigError(f"{name} = {value!r}: expected tags, joined by +.")
    return as_number(name, value)


def as_number(name: str, value: object) -> float:
    """A parameter that has to be a number.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {value!r}: expected a number.")
    return float(value)


def fixed_weight(stats: TokenStats) -> mx.array:
    """The weight that was computed for the whole step beforehand."""
    weight = stats.known.weight
    assert weight is not None
    return weight
