"""JSON that a model wrote: parsed without excuses, compared field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

ABSENT = object()
"""What stands for a text that is no JSON, and for a field that is not there."""


def parsed(text: str) -> Any:
    """The JSON value of a text; ``ABSENT`` if it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return ABSENT


def _refuse(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def at(value: Any, path: str) -> Any:
    """A field, its path with dots; ``ABSENT`` if it is not there."""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return ABSENT
        value = cast("dict[str, Any]", value)[name]
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two values are one in JSON, where true is no number."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return left.keys() == right.keys() and all(
            same(left[k], right[k]) for k in left
        )
    if isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[Any]", one), cast("list[Any]", other)
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def names(texts: Iterable[str]) -> list[str]:
    """The fields of all JSON objects among some texts, in the order they appear."""
    found: dict[str, None] = {}
    for text in texts:
        value = parsed(text)
        if isinstance(value, dict):
            found.update(dict.fromkeys(cast("dict[str, Any]", value)))
    return list(found)
