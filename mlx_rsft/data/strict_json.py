"""JSON as the standard has it: what Python's reader lets pass is noted and refused.

That is NaN and Infinity, numbers beyond any type, a key that is there twice, half of a
surrogate pair, and nesting without end.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_DEEP = 100
MOST_DIGITS = 300
"""Of a whole number; a float ends near 1e308."""
HALF_PAIR = re.compile("[\ud800-\udfff]")


class Reader:
    """Reads JSON values, and notes what is wrong with those that Python can read.

    Attributes:
        problems: What is wrong with the last value; empty if nothing.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def value(self, text: str) -> Any:
        """The value that a text is.

        Raises:
            ValueError: If it is none, or one that the standard does not know.
        """
        self.problems.clear()
        try:
            value = self._decoder.decode(text)
        except json.JSONDecodeError as problem:
            raise ValueError(_said(problem, text)) from None
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        self.check(value, text)
        if self.problems:
            raise ValueError(self.problems[0])
        return value

    def start(self, text: str, place: int) -> tuple[Any, int]:
        """The value that starts at a place, and where it ends; notes ``problems``.

        Raises:
            JSONDecodeError: If there is none, or not all of it.
            RecursionError: If it is nested too deeply.
        """
        self.problems.clear()
        return self._decoder.raw_decode(text, place)

    def check(self, value: Any, text: str) -> None:
        """Note nesting that is too deep, and halves of pairs, in a value read.

        Args:
            value: The value.
            text: What it was read from; tells quickly that there is nothing to look for.
        """
        openings = text.count("{") + text.count("[")
        if openings > MOST_DEEP or "\\ud" in text or "\\uD" in text:
            self._walk(value)

    def _walk(self, value: Any) -> None:
        level = [value]
        for _ in range(MOST_DEEP):
            below: list[Any] = []
            for item in level:
                if isinstance(item, dict):
                    below += [*item, *item.values()]
                elif isinstance(item, list):
                    below += item
                elif isinstance(item, str) and HALF_PAIR.search(item):
                    self.problems.append(f"{item[:40]!r} holds half of a letter")
            level = below
            if not level:
                return
        self.problems.append("it is nested too deeply")

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self.problems.append(f"the key {twice[:40]!r} is there twice")
        return made

    def _constant(self, name: str) -> None:
        self.problems.append(f"{name} is no JSON number")

    def _float(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self.problems.append(f"the number {text[:20]} is too large")
        return value

    def _int(self, text: str) -> int:
        if len(text) > MOST_DIGITS:
            self.problems.append(f"the number {text[:20]}... is too large")
            return 0
        return int(text)


def _said(problem: json.JSONDecodeError, text: str) -> str:
    if "\0" in text:
        return f"it holds a NUL character at column {text.index(chr(0)) + 1}"
    if problem.msg == "Extra data":
        return f"a second value begins at column {problem.colno}"
    return f"{problem.msg} at column {problem.colno}"


def loads(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: If it is not standard JSON.
    """
    return Reader().value(text)
