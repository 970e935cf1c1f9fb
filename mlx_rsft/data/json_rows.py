"""Rows of JSON files: an object per line, or an array of objects.

Which of the two is told by the first letter and not by the file's name. An array is
read piece by piece, so that a large one takes no more memory than its largest row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

from mlx_rsft.data import encodings
from mlx_rsft.data.conversation import Row
from mlx_rsft.data.strict_json import Reader
from mlx_rsft.errors import DataError

MARK = "\ufeff"
CHUNK = 1 << 18
NEAR = 32
"""Letters before the end in which a cut number, word or escape looks wrong."""
BLANK = re.compile(r"\s*")
Found = Iterator[Row | DataError]


def read(path: Path, encoding: str, name: str) -> Found:
    """The rows of a JSON file, and in their place those that are none.

    Args:
        path: The file.
        encoding: Of its text.
        name: What errors call the file.
    """
    with encodings.open_text(path, encoding) as file:
        start = file.read(encodings.START).lstrip(f"{MARK} \t\r\n")
    if start.startswith("["):
        with encodings.open_text(path, encoding, newline=None) as file:
            yield from _Array(file, name).rows()
        return
    with encodings.open_text(path, encoding) as file:
        rows = _lines(file, name)
        if path.name.lower().removesuffix(".gz").endswith(".json"):
            rows = _unless_the_first_is_none(rows)
        yield from rows


def _lines(file: IO[str], name: str) -> Found:
    reader = Reader()
    for number, line in enumerate(encodings.lines(file, name), start=1):
        if not line.isspace():
            yield _line(line, f"{name}:{number}", reader)


def _line(line: str, where: str, reader: Reader) -> Row | DataError:
    if broken := encodings.refuse_undecoded(line, where):
        return broken
    try:
        record = reader.value(line)
    except ValueError as problem:
        if line.startswith(MARK):  # the start of another file that was appended
            return _line(line[1:], where, reader)
        return _invalid(str(problem), where)
    return _row(record, where)


def _invalid(said: str, where: str, hint: str = "") -> DataError:
    return DataError(f"Not valid JSON: {said}.", where=where, hint=hint)


def _row(record: object, where: str) -> Row | DataError:
    if not isinstance(record, dict):
        return DataError(
            f"Expected a JSON object, found {type(record).__name__}.", where=where
        )
    return Row(record, where)


def _unless_the_first_is_none(rows: Found) -> Found:
    """The rows; where the first is broken, it is no file of one row per line at all."""
    for number, row in enumerate(rows):
        if number == 0 and isinstance(row, DataError):
            raise DataError(
                row.message,
                where=row.where,
                hint="A .json file is a JSON array of rows, or has one row per line.",
            )
        yield row


class _Array:
    """An array that is read row by row; knows the line that it has come to."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name = file, name
        self._reader = Reader()
        self._text, self._place, self._line = "", 0, 1
        self._ended = False

    def rows(self) -> Found:
        """The rows, and in their place those that are none.

        Raises:
            DataError: Where the array breaks.
        """
        self._after("[")
        if self._next() == "]":
            return
        for number in count(1):
            self._next()
            yield self._item(f"{self._where(self._place)}: item {number}")
            if self._after(",]") == "]":
                break
        if self._next():
            raise _invalid("the array has ended", self._where(self._place))

    def _after(self, wanted: str) -> str:
        found = self._next().lstrip(MARK)
        if not found or found not in wanted:
            where = self._where(self._place)
            said = "the end of the file" if not found else repr(found)
            raise _invalid(f"{said} where {' or '.join(wanted)} is due", where)
        self._place += 1
        return found

    def _next(self) -> str:
        """The next letter that is not blank, which is not passed; none at the end."""
        while True:
            found = BLANK.match(self._text, self._place)
            place = found.end() if found else self._place
            self._line += self._text.count("\n", self._place, place)
            self._place = place
            if place < len(self._text):
                return self._text[place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, letting go of what is passed; False at the end of the file."""
        rest = self._text[self._place :]
        more = self._file.read(max(CHUNK, len(rest)))
        self._text, self._place, self._ended = rest + more, 0, not more
        return not self._ended

    def _item(self, where: str) -> Row | DataError:
        value, end = self._value(where)
        text = self._text[self._place : end]
        self._line += text.count("\n")
        self._place = end
        if broken := encodings.refuse_undecoded(text, where):
            return broken
        self._reader.check(value, text)
        if problems := self._reader.problems:
            return _invalid(problems[0], where)
        return _row(value, where)

    def _value(self, where: str) -> tuple[Any, int]:
        """The value that starts here, and where it ends; reads on until it is whole."""
        while True:
            try:
                value, end = self._reader.start(self._text, self._place)
                if self._ended or len(self._text) - end > NEAR:
                    return value, end
            except json.JSONDecodeError as problem:
                is_cut = problem.msg.startswith("Unterminated string")
                if self._ended or (not is_cut and problem.pos + NEAR < len(self._text)):
                    raise _invalid(problem.msg, self._where(problem.pos)) from None
            except RecursionError:
                raise _invalid("it is nested too deeply", where) from None
            if len(self._text) > encodings.MOST:
                raise encodings.too_long(where)
            self._more()

    def _where(self, place: int) -> str:
        return (
            f"{self._name}:{self._line + self._text.count(chr(10), self._place, place)}"
        )
