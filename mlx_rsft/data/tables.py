"""Rows of tables: a header and cells between commas, semicolons or tabs."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mlx_rsft.data import encodings
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import DataError

TAB = "\t"
SEPARATORS = (",", ";", TAB)
QUOTED = re.compile('"[^"]*"')
DECLARED = re.compile('\ufeff?"?sep=([^\\w\\s"]|\\t)"?\\s*')
"""The first line with which a spreadsheet program tells another its separator."""
Found = Iterator[Row | DataError]


def read(path: Path, encoding: str, name: str) -> Found:
    """The rows of a table, and in their place those that are none.

    Args:
        path: The file.
        encoding: Of its text.
        name: What errors call the file.

    Raises:
        DataError: If the header cannot be used.
    """
    csv.field_size_limit(encodings.MOST)
    with encodings.open_text(path, encoding) as file:
        names: list[str] = []
        default = TAB if ".tsv" in path.name.lower() else SEPARATORS[0]
        for where, values in _records(encodings.lines(file, name), name, default):
            if isinstance(values, DataError):
                if not names:
                    raise values
                yield values
            elif not any(map(str.strip, values)):
                continue
            elif names:
                yield _row(names, values, where)
            else:
                names = _header(values, where)


def _records(
    lines: Iterator[str], name: str, default: str
) -> Iterator[tuple[str, list[str] | DataError]]:
    """The cells of each record, blank ones too, and the line where it begins."""
    first = next(lines, "")
    declared = DECLARED.fullmatch(first)
    header = next(lines, "") if declared else first
    separator = declared[1] if declared else _separator(header, default)
    before = 2 if declared else 1
    reader = csv.reader(chain([header], lines), delimiter=separator, strict=True)
    while True:
        where = f"{name}:{reader.line_num + before}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            last = reader.line_num + before - 1
            yield where, _broken(str(problem), where, last)
        else:
            yield where, values


def _separator(header: str, default: str) -> str:
    """What is there most often outside quotes; what the suffix says if nothing is."""
    return max((default, *SEPARATORS), key=QUOTED.sub("", header).count)


def _broken(said: str, where: str, last: int) -> DataError:
    return DataError(
        f"Not a valid table: {said}; the row goes on to line {last}.",
        where=where,
        hint='A quote inside a cell is written twice (""), and each is to be closed.',
    )


def _header(values: list[str], where: str) -> list[str]:
    """The names of the columns; unnamed ones, such as row numbers, are not read."""
    names = [value.strip().removeprefix("\ufeff") for value in values]
    if broken := _unreadable(names, where):
        raise broken
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(
            f"The header has the column {twice[0][:40]!r} more than once.",
            where=where,
            hint="Give each column a name of its own.",
        )
    return names


def _row(names: list[str], values: list[str], where: str) -> Row | DataError:
    if len(values) < len(names) or any(map(str.strip, values[len(names) :])):
        return DataError(
            f"The row has {len(values)} cells, the header {len(names)}.",
            where=where,
            hint="Put cells that hold the separator or a line break into quotes.",
        )
    if broken := _unreadable(values, where):
        return broken
    return Row(
        {name: value for name, value in zip(names, values, strict=False) if name},
        where,
    )


def _unreadable(values: list[str], where: str) -> DataError | None:
    text = "".join(values)
    if "\0" in text:
        return DataError(
            "The row holds a NUL character.",
            where=where,
            hint="Is the file text, and --encoding right?",
        )
    return encodings.refuse_undecoded(text, where)
