"""A JSON document as typed values: what is wrong is named by its place in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


MOST = 1e100
"""No quantity comes near it, and sums of what is below stay finite."""


class Mistyped(ValueError):
    """A value that is missing, or not of the type expected; ``str`` says where."""


def read(kind: Any, value: object, place: str = "") -> Any:
    """The value as an instance of a type.

    Args:
        kind: A dataclass, or what its fields may be: bool, int, float, str, None,
            ``Literal``, ``Mapping[str, T]``, ``Sequence[T]``, unions of them, or Any.
            Keys of the document that a dataclass does not have are passed over.
        value: What a JSON reader made of the document.
        place: Where in the document, such as ``arms[2].cost``.

    Raises:
        Mistyped: If something is missing or of another type.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _record(kind, value, place)
    origin = get_origin(kind)
    if origin is UnionType:
        return _one_of(get_args(kind), value, place)
    if origin is Literal:
        return _literal(get_args(kind), value, place)
    if origin is not None:
        return _several(origin, get_args(kind)[-1], value, place)
    return _plain(kind, value, place)


def _record(kind: Any, value: object, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(place, value, "an object")
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        below = f"{place}.{field.name}" if place else field.name
        if field.name in value:
            found[field.name] = read(hints[field.name], value[field.name], below)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise Mistyped(f"{below} is missing")
    return kind(**found)


def _one_of(kinds: Sequence[Any], value: object, place: str) -> Any:
    """Unions here are of one type and None."""
    if value is None and NoneType in kinds:
        return None
    return read(next(kind for kind in kinds if kind is not NoneType), value, place)


def _literal(known: Sequence[Any], value: object, place: str) -> Any:
    if value not in known:
        names = ", ".join(map(repr, known))
        raise Mistyped(f"{place} is {str(value)[:40]!r}, expected one of {names}")
    return value


def _several(origin: Any, kind: Any, value: object, place: str) -> Any:
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(place, value, "an object")
        return {
            key: read(kind, item, f"{place}[{str(key)[:40]!r}]")
            for key, item in value.items()
        }
    if not isinstance(value, list):
        raise _wrong(place, value, "a list")
    return [read(kind, item, f"{place}[{at}]") for at, item in enumerate(value)]


def _plain(kind: Any, value: object, place: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= MOST:
        return float(value)
    if type(value) is not kind:
        raise _wrong(place, value, WORDS[kind])
    if isinstance(value, int | float) and abs(value) > MOST:
        raise Mistyped(f"{place} is too large a number")
    return value


def _wrong(place: str, value: object, expected: str) -> Mistyped:
    if isinstance(value, Mapping | list):
        found = "an object" if isinstance(value, Mapping) else "a list"
    else:
        found = WORDS.get(type(value), "something else")
    where = place or "the whole"
    return Mistyped(f"{where} is {found}, expected {expected}")
