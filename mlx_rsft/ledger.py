"""The log of a run: lines are added and never rewritten, each sealed with those before.

RUN/audit.jsonl  one event per line: n, event, time, what it says, prev, sha256

A line's ``sha256`` is of all else in it, the seal of the line before included, so that
the last seal stands for the whole log, and by the hashes in it for the whole folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import files, manifest
from mlx_rsft.errors import RunError
from mlx_rsft.records import as_line
from mlx_rsft.rundir import LOCK

NAME = "audit.jsonl"
SEAL = "sha256"
FIRST = "0" * 64
"""What stands for the seal before the first."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a log says.

    Attributes:
        events: The lines that are as they were written, up to the first that is not.
        broken: What is wrong with the line after them; empty: nothing is.
        torn: Whether the file ends in the midst of a line, as a kill leaves it.
    """

    events: tuple[Mapping[str, Any], ...]
    broken: str = ""
    torn: bool = False

    @property
    def head(self) -> str:
        """The last seal."""
        return self.events[-1][SEAL] if self.events else FIRST


def append(run: Path, event: str, **facts: Any) -> str:
    """Add an event, on disk when it returns; what a kill left half-written is removed.

    Returns:
        Its seal.

    Raises:
        RunError: If the last line is not as it was written.
    """
    path = run / NAME
    held = path.read_bytes() if path.is_file() else b""
    whole = held[: held.rfind(b"\n") + 1]
    last: Mapping[str, Any] = _last(run, whole) if whole else {"n": -1, SEAL: FIRST}
    record: dict[str, Any] = {
        "n": last["n"] + 1,
        "event": event,
        "time": manifest.now(),
        **facts,
        "prev": last[SEAL],
    }
    record[SEAL] = _seal(record)
    with path.open("ab") as file:
        if len(whole) < len(held):
            file.truncate(len(whole))
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())
    return record[SEAL]


def _last(run: Path, whole: bytes) -> Mapping[str, Any]:
    """The last line alone: to hold all of them against each other is for ``read``."""
    line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    try:
        said = json.loads(line)
        record = _checked(line, said["n"], said["prev"])
    except (ValueError, TypeError, KeyError, RecursionError):
        record = None
    if record is None:
        raise RunError(
            "The log is not as it was written.",
            where=str(run / NAME),
            hint=f"See what was altered: mlx-rsft audit verify {run}",
        )
    return record


def read(run: Path) -> Log:
    """What the log of a run says, as far as it is as it was written."""
    path = run / NAME
    held = path.read_bytes() if path.is_file() else b""
    lines = held.split(b"\n")
    events: list[Mapping[str, Any]] = []
    seal = FIRST
    for number, line in enumerate(lines[:-1]):
        record = _checked(line + b"\n", number, seal)
        if record is None:
            return Log(tuple(events), f"line {number + 1} was altered")
        events.append(record)
        seal = record[SEAL]
    return Log(tuple(events), torn=bool(lines[-1]))


def _checked(line: bytes, number: int, prev: str) -> Mapping[str, Any] | None:
    """A line's record, if it is to the byte what was written there."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or _line(record) != line:
        return None
    said = record.get("n"), record.get("prev"), record.get(SEAL)
    return record if said == (number, prev, _seal(record)) else None


def _line(record: Mapping[str, Any]) -> bytes:
    return as_line(record).encode("utf-8", "surrogatepass")


def _seal(record: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in record.items() if key != SEAL}
    return hashlib.sha256(_line(kept)).hexdigest()


def inventory(run: Path) -> dict[str, str]:
    """The SHA-256 of every file of a run but its log, by its place in the folder."""
    return {place: files.sha256(run / place) for place in places(run) if place != NAME}


def places(run: Path) -> list[str]:
    """Every file in the folder, links among them, by its place in it.

    The lock, which holds nothing, is left out.
    """
    found = [path for path in run.rglob("*") if path.is_symlink() or not path.is_dir()]
    named = {path.relative_to(run).as_posix(): path for path in found}
    if LOCK in named and not named[LOCK].lstat().st_size:
        del named[LOCK]
    return sorted(named)
