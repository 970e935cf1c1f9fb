"""Which settings hold: merged, checked all at once, each with where it came from.

Precedence is default < profile < file < ``--set`` < flag, as layers of flat ``table.key`` names.
The ``[objective]`` table stays open here (its parameters belong to the objective); a
layer that names an objective replaces the table of the layers below it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.errors import ConfigError, RsftError, nearest, raise_together
from mlx_rsft.keys import KEYS, OPEN_TABLE, TABLES, Key, read
from mlx_rsft.settings import Config

DEFAULT, FLAG, SET, PROFILE = "default", "flag", "--set", "profile"
LISTS: dict[Any, type] = {tuple[str, ...]: str, tuple[int, ...]: int}
EXPECTED: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    tuple[str, ...]: "list of names",
    tuple[int, ...]: "list of whole numbers",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one origin, by full key name."""

    origin: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked configuration and the origin of each value."""

    config: Config
    origins: Mapping[str, str]

    def is_given(self, key: str) -> bool:
        """Whether somebody chose the value, as opposed to our default."""
        return self.origins.get(key, DEFAULT) != DEFAULT


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge ``layers`` over the defaults, later ones first in rank, and check all.

    Raises:
        ConfigError: With every unknown key, wrong type and value out of range.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    problems: list[RsftError] = []
    for layer in layers:
        if f"{OPEN_TABLE}.name" in layer.values:
            for key in [key for key in values if key.startswith(f"{OPEN_TABLE}.")]:
                del values[key], origins[key]
        for name, value in layer.values.items():
            try:
                values[name] = _checked(name, value, layer.origin)
                origins[name] = layer.origin
            except ConfigError as problem:
                problems.append(problem)
    raise_together(problems)
    return Resolved(_build(values), origins)


def changed(resolved: Resolved, values: Mapping[str, object], origin: str) -> Resolved:
    """The same settings but for some values, checked again."""
    held = {name: _held(resolved.config, name) for name in resolved.origins}
    merged = resolve([Layer(DEFAULT, held), Layer(origin, values)])
    origins = {**resolved.origins, **dict.fromkeys(values, origin)}
    return dataclasses.replace(merged, origins=origins)


def _held(config: Config, name: str) -> object:
    table, _, key = name.partition(".")
    return config.objective[key] if table == OPEN_TABLE else read(config, name)


def require(config: Config, *names: str) -> None:
    """Raise ConfigError for each named setting that nobody gave."""
    problems = [
        ConfigError(
            f"{name} is not given.",
            where=name,
            hint=f"Pass {KEYS[name].field.metadata['required']}, or set it in a file.",
        )
        for name in names
        if not read(config, name)
    ]
    raise_together(problems)


def _build(values: Mapping[str, object]) -> Config:
    def table(name: str) -> dict[str, object]:
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in values.items()
            if key.startswith(prefix)
        }

    made: dict[str, Any] = {name: kind(**table(name)) for name, kind in TABLES.items()}
    if "seed" in values:
        made["seed"] = values["seed"]
    return Config(objective=table(OPEN_TABLE), **made)


def _checked(name: str, value: object, origin: str) -> object:
    if name.startswith(f"{OPEN_TABLE}."):
        return value
    if name not in KEYS:
        raise ConfigError(
            f"Unknown setting {name!r}.",
            where=origin,
            hint=nearest(name, [*KEYS, f"{OPEN_TABLE}.name"]),
        )
    key = KEYS[name]
    try:
        typed = _typed(key, value)
        _within_limits(key, typed)
    except ValueError as problem:
        raise ConfigError(
            f"{name} = {value!r}: {problem}.", where=origin, hint=key.about
        ) from None
    return typed


def _typed(key: Key, value: object) -> object:
    if key.type is bool or isinstance(value, bool):
        if key.type is bool and isinstance(value, bool):
            return value
    elif key.type is float and isinstance(value, int | float):
        if math.isfinite(value):
            return float(value)
    elif key.type in (int, str) and (
        isinstance(value, key.type)
        or str(value) in key.field.metadata.get("choices", ())  # quantize = 4
    ):
        return value if isinstance(value, key.type) else str(value)
    elif key.type in LISTS:
        return _listed(key.type, value)
    raise ValueError(f"expected a {EXPECTED[key.type]}")


def _listed(kind: type, value: object) -> tuple[object, ...]:
    """A list as TOML has it, or as words between commas; one number is a list too."""
    items: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, str):
        items = [part.strip() for part in value.split(",")]
    wanted = LISTS[kind]
    if wanted is int:
        items = [_number(item) for item in items]
    if not all(type(item) is wanted and item != "" for item in items):
        raise ValueError(f"expected a {EXPECTED[kind]}")
    return tuple(items)


def _number(item: object) -> object:
    """Words of digits as the number that they are; all else stays."""
    return int(item) if isinstance(item, str) and item.isdecimal() else item


def _within_limits(key: Key, value: object) -> None:
    limits = key.field.metadata
    if "choices" in limits and value not in limits["choices"]:
        raise ValueError(nearest(str(value), limits["choices"]).rstrip(".?"))
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float):
            _within(limits, number)


def _within(limits: Mapping[str, Any], number: float) -> None:
    if "least" in limits and number < limits["least"]:
        raise ValueError(f"must be at least {limits['least']}")
    if "above" in limits and number <= limits["above"]:
        raise ValueError(f"must be above {limits['above']}")
    if "below" in limits and number >= limits["below"]:
        raise ValueError(f"must be below {limits['below']}")


def from_profile(path: Path) -> Layer:
    """What ``search`` has chosen, as a layer; its origin says that it is a profile.

    Raises:
        ConfigError: If the file is missing or is not TOML; names the line.
    """
    layer = from_file(path)
    return Layer(f"{PROFILE} {layer.origin}", layer.values)


def from_file(path: Path) -> Layer:
    """The settings of one TOML file as a layer.

    Raises:
        ConfigError: If the file is missing or is not TOML; names the line.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"Cannot read the configuration ({problem.strerror}).", where=str(path)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"Not valid TOML: {problem}.", where=str(path)) from None
    return Layer(str(path), _flat(tree))


def _flat(tree: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def from_assignments(assignments: Sequence[str]) -> Layer:
    """``--set table.key=value`` arguments as a layer; values are TOML or plain text.

    Raises:
        ConfigError: If an argument has no ``=``.
    """
    values: dict[str, object] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                f"{text!r} assigns nothing.", where=SET, hint="Write table.key=value."
            )
        values[name.strip()] = _parsed(value.strip())
    return Layer(SET, values)


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def as_toml(resolved: Resolved) -> str:
    """The whole configuration as TOML, each line with its origin as a comment."""
    config = resolved.config

    def line(table: str, name: str, value: object) -> str:
        key = f"{table}.{name}".lstrip(".")
        return f"{name} = {_literal(value)}  # {resolved.origins.get(key, DEFAULT)}"

    lines = [line("", "seed", config.seed)]
    for item in dataclasses.fields(config):
        held = getattr(config, item.name)
        if item.name == "seed":
            continue
        pairs = held.items() if item.name == OPEN_TABLE else _fields(held)
        lines += ["", f"[{item.name}]"]
        lines += [line(item.name, name, value) for name, value in pairs]
    return "\n".join(lines) + "\n"


def _fields(held: Any) -> list[tuple[str, object]]:
    return [(item.name, getattr(held, item.name)) for item in dataclasses.fields(held)]


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False)


def given_as_toml(resolved: Resolved) -> str:
    """What somebody chose, as TOML that ``--config`` takes; defaults are left out."""
    tables: dict[str, list[str]] = {}
    for name, origin in resolved.origins.items():
        table, _, key = name.rpartition(".")
        value = _literal(_held(resolved.config, name))
        tables.setdefault(table, []).append(f"{key} = {value}  # {origin}")
    parts = [
        "\n".join(([f"[{table}]"] if table else []) + sorted(lines))
        for table, lines in sorted(tables.items())
    ]
    return "\n\n".join(parts) + "\n"
