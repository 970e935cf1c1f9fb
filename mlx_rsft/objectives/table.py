"""The table of objectives, and the two ways to write one down.

On the command line ``dft:floor=0.1``, in TOML ``[objective] name = "dft"`` and
``floor = 0.1``. Both go through ``build``, which checks them alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.objectives.power import dft, power, sft, with_floor
from mlx_rsft.objectives.tokens import TokenWeight


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table: how to make it, when to use it, who published it."""

    factory: Callable[..., TokenWeight]
    about: str
    source: str


OBJECTIVES: dict[str, Entry] = {
    "sft": Entry(sft, "new facts and formats; the base model is weak here", "-"),
    "dft": Entry(dft, "the base model is already capable here", "arXiv:2508.05629"),
    "power": Entry(power, "between the two, by alpha", "arXiv:2510.00526"),
}
MODIFIERS: dict[str, Callable[[TokenWeight, float], TokenWeight]] = {
    "floor": with_floor
}


@dataclass(frozen=True, slots=True)
class Objective:
    """A chosen objective: its name, every parameter that was given, its weight."""

    name: str
    parameters: Mapping[str, float]
    weight: TokenWeight

    def __str__(self) -> str:
        given = ",".join(f"{key}={value:g}" for key, value in self.parameters.items())
        return f"{self.name}:{given}" if given else self.name

    def as_table(self) -> dict[str, object]:
        """The objective as its TOML table."""
        return {"name": self.name, **self.parameters}


def parse(text: str) -> dict[str, object]:
    """The table that ``name:parameter=value,...`` stands for.

    Raises:
        ConfigError: If a parameter is not ``name=number``.
    """
    name, _, rest = text.partition(":")
    table: dict[str, object] = {"name": name.strip()}
    for part in filter(None, rest.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            equals, number = "", 0.0
        if not equals or key in table:
            raise ConfigError(
                f"{part!r} is not a parameter, or given twice.",
                where=f"objective {text!r}",
                hint="Write it like dft:floor=0.1.",
            )
        table[key] = number
    return table


def build(table: Mapping[str, object]) -> Objective:
    """The objective that a table describes; its name may be in string form.

    Raises:
        ConfigError: For an unknown name or parameter, a missing one, or a bad value.
    """
    if not table.get("name"):
        raise ConfigError(
            "No objective is given.",
            where="objective.name",
            hint=f"Pass --objective NAME. {nearest('', OBJECTIVES)}",
        )
    named = parse(str(table["name"]))
    given = {**named, **{key: table[key] for key in table if key != "name"}}
    name, where = str(named["name"]), f"objective {table['name']!r}"
    if name not in OBJECTIVES:
        raise ConfigError(
            f"There is no objective {name!r}.",
            where=where,
            hint=nearest(name, OBJECTIVES),
        )
    factory = OBJECTIVES[name].factory
    own = list(inspect.signature(factory).parameters)
    parameters = {
        key: _number(key, given[key], where) for key in given if key != "name"
    }
    _check_names(parameters, own, where)
    try:
        weight = factory(*(parameters[key] for key in own))
        for key in MODIFIERS:
            if key in parameters:
                weight = MODIFIERS[key](weight, parameters[key])
    except ConfigError as problem:
        raise ConfigError(problem.message, where=where) from None
    return Objective(name, parameters, weight)


def _number(key: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} = {value!r}: expected a number.", where=where)
    return float(value)


def _check_names(given: Mapping[str, float], own: list[str], where: str) -> None:
    known = [*own, *MODIFIERS]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"There is no parameter {key!r}.", where=where, hint=nearest(key, known)
            )
    for key in own:
        if key not in given:
            raise ConfigError(f"The parameter {key!r} is missing.", where=where)
