"""Bring corrected answers back into a data file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data import source
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError, RsftError, raise_together
from mlx_rsft.workflows import rendering

WHERE, BEFORE, AFTER = "where", "answer", "corrected"
"""Columns of the table of corrections; the others are for whoever fills it in."""
ANSWERS = ("messages", "completion", "output", "conversations")
"""Keys that hold answers, of all formats."""
DROP = "drop"
"""Stands for a corrected answer where the row is to go."""


def fix(resolved: Resolved, file: Path, table: Path, out: Path) -> dict[str, Any]:
    """Write a data file with some last answers replaced, as JSON lines.

    Args:
        resolved: Settings; those of reading count here.
        file: The rows, in any form that can be read.
        table: Corrections as ``probe --suspects`` writes them; a row whose
            ``corrected`` is empty stays, one where it is ``drop`` goes.
        out: The new file.

    Returns:
        ``{"file", "rows", "corrected", "dropped"}``.

    Raises:
        DataError: If a file cannot be read, or a correction is for a row that is not
            there or has another answer; nothing is written then.
    """
    if out.exists():
        raise DataError("There is something already.", where=str(out))
    wanted = _corrections(table)
    records: list[Mapping[str, Any]] = []
    problems: list[RsftError] = []
    rows = done = 0
    for row in source.read(file, *rendering.reading(resolved.config)[1:]):
        rows += 1
        try:
            if isinstance(row, DataError):
                raise row
            correction = wanted.pop(row.where, None)
            record = _replaced(row, *correction) if correction else row.record
        except DataError as problem:
            problems.append(problem.with_traceback(None))
            continue
        done += correction is not None and record is not None
        records += [record] if record is not None else []
    raise_together([*problems, *(_absent(where, file, table) for where in wanted)])
    _write(out, records)
    dropped = rows - len(records)
    return {
        "file": str(out),
        "rows": len(records),
        "corrected": done,
        "dropped": dropped,
    }


def _write(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    try:
        files.write_text(out, "".join(lines))
    except OSError as problem:
        raise ConfigError(
            f"The file cannot be written ({problem.strerror or problem}).",
            where=str(out),
        ) from None


def _absent(where: str, file: Path, table: Path) -> DataError:
    return DataError(
        f"There is no row {where} in {file}.",
        where=str(table),
        hint="Name the file as it was named to probe, unchanged since.",
    )


def _corrections(table: Path) -> dict[str, tuple[str, str]]:
    """Answer and corrected answer by place, where there is a corrected one."""
    found: dict[str, tuple[str, str]] = {}
    for row in source.read(table):
        if isinstance(row, DataError):
            raise row
        for column in (WHERE, BEFORE, AFTER):
            if column not in row.record:
                raise DataError(
                    f"The table has no column {column!r}.",
                    where=row.where,
                    hint="Keep the columns that probe --suspects wrote.",
                )
        if str(row.record[AFTER]).strip():
            cells = (str(row.record[BEFORE]), str(row.record[AFTER]))
            found[str(row.record[WHERE])] = cells
    if not found:
        raise DataError(
            "Nothing is corrected in it.",
            where=str(table),
            hint=f"Fill in the column {AFTER!r}: the right answer, or {DROP}.",
        )
    return found


def _replaced(row: Row, before: str, after: str) -> Mapping[str, Any] | None:
    """The record with its last answer ``before`` changed; None if it is to go."""
    places = [
        place
        for place, text in _texts(row.record, ())
        if place[0] in ANSWERS and text.strip() == before.strip()
    ]
    if not places:
        raise DataError(
            "The row's answer is not the one in the table of corrections.",
            where=row.where,
            hint="Has the file changed since it was probed?",
        )
    if after.strip() == DROP:
        return None
    record = json.loads(json.dumps(row.record))
    *path, last = places[-1]
    holder = record
    for step in path:
        holder = holder[step]
    holder[last] = after
    return record


def _texts(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every text of a record with the way to it."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*place, number))
