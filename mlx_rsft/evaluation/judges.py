"""Judges: what is right about one answer, beside what its row demonstrates.

The parameters of a judge are its factory's arguments. A row whose demonstrated answer
cannot be judged is the user's to mend, so it is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation import fields
from mlx_rsft.objectives.limits import at_least

Judge = Callable[[str, Example], float]
"""From an answer and its row to a score, mostly 0 or 1."""

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def exact() -> Judge:
    """The same text, white space at its ends aside."""
    return lambda answer, row: float(answer.strip() == row.answer.strip())


def contains(text: str = "", case: Literal["exact", "ignore"] = "exact") -> Judge:
    """The demonstrated answer, or ``text``, occurs in what was written."""

    def told(words: str) -> str:
        return words.casefold() if case == "ignore" else words

    def judge(answer: str, row: Example) -> float:
        return float(told(text or row.answer.strip()) in told(answer))

    return judge


def numeric(
    tolerance: float = 0.0,
    relative: float = 0.0,
    take: Literal["last", "first"] = "last",
) -> Judge:
    """A number of the answer is that of the demonstration, to a tolerance.

    Args:
        tolerance: Largest difference.
        relative: The same, as a share of the demonstrated number; the larger holds.
        take: Which number of a text is meant.
    """
    at_least("tolerance", tolerance, 0)
    at_least("relative", relative, 0)

    def judge(answer: str, row: Example) -> float:
        wanted, given = _number(row.answer, take), _number(answer, take)
        if wanted is None:
            raise _unusable(row, "has no number")
        allowed = max(tolerance, relative * abs(wanted))
        return float(given is not None and abs(given - wanted) <= allowed)

    return judge


def _number(text: str, take: str) -> float | None:
    found = NUMBER.findall(text)
    if not found:
        return None
    number = float(found[0 if take == "first" else -1].replace(",", ""))
    return number if math.isfinite(number) else None


def regex(pattern: str, group: str = "") -> Judge:
    """Groups of the first match are those of the first match in the demonstration.

    Args:
        pattern: A regular expression of Python.
        group: Numbers or names of groups, joined by +; empty: all of them, the whole
            match where there are none.
    """
    compiled = compiled_pattern(pattern)
    wanted = [int(g) if g.isdigit() else g for g in filter(None, group.split("+"))]
    for name in wanted:
        if name not in (*range(compiled.groups + 1), *compiled.groupindex):
            raise ConfigError(f"group = {name!r}: the pattern has no such group.")
    wanted = wanted or [*range(1, compiled.groups + 1)] or [0]

    def judge(answer: str, row: Example) -> float:
        shown, match = compiled.search(row.answer), compiled.search(answer)
        if shown is None:
            raise _unusable(row, f"does not match {pattern!r}")
        same = match is not None and all(match[g] == shown[g] for g in wanted)
        return float(same)

    return judge


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as problem:
        raise ConfigError(f"pattern = {pattern!r}: {problem}.") from None


def json_fields(field: str = "") -> Judge:
    """The answer is a JSON object with the fields of the demonstrated one.

    Args:
        field: The one that counts, its path with dots; empty: all.
    """

    def judge(answer: str, row: Example) -> float:
        wanted, given = fields.parsed(row.answer), fields.parsed(answer)
        if not isinstance(wanted, dict):
            raise _unusable(row, "is no JSON object")
        if not isinstance(given, dict):
            return 0.0
        if field:
            return float(fields.same(fields.at(given, field), fields.at(wanted, field)))
        return float(fields.same(given, wanted))

    return judge


def format_valid(pattern: str = "") -> Judge:
    """The answer has the form of the demonstrations, whatever it says.

    Args:
        pattern: Regular expression of the form; empty: JSON, with the fields of the
            row's own.
    """
    compiled = compiled_pattern(pattern) if pattern else None

    def by_pattern(answer: str, row: Example) -> float:
        assert compiled is not None
        if not compiled.fullmatch(row.answer.strip()):
            raise _unusable(row, f"is not in the form {pattern!r}")
        return float(compiled.fullmatch(answer.strip()) is not None)

    return by_pattern if compiled else _like_json


def _like_json(answer: str, row: Example) -> float:
    wanted, given = fields.parsed(row.answer), fields.parsed(answer)
    if wanted is fields.ABSENT:
        raise _unusable(row, "is no JSON; format_valid:pattern=... names another form")
    if isinstance(wanted, dict) and isinstance(given, dict):
        return float(wanted.keys() == given.keys())
    return float(type(wanted) is type(given))


def _unusable(row: Example, what: str) -> DataError:
    shown = row.answer if len(row.answer) <= 60 else f"{row.answer[:60]}..."
    return DataError(
        f"The demonstrated answer {what}: {shown!r}.",
        where=row.where,
        hint="Mend the row, or leave this metric for such splits.",
    )


JUDGES: dict[str, Callable[..., Any]] = {
    "exact": exact,
    "contains": contains,
    "numeric": numeric,
    "regex": regex,
    "json": json_fields,
}
"""By which a sampled answer may be judged."""
