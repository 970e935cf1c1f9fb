"""Where the states of frozen blocks are kept: in memory, or in a folder.

A row's states are bytes here, one line of them per token, whatever their type. What is
in a store stays: a pass over all rows would drop each row just before its next use from
a store that evicts. What does not fit is refused, and its owner computes it again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mlx_rsft.errors import MachineError

Lines = np.ndarray
"""(T, bytes per token), uint8."""


class Store(Protocol):
    """Keeps the states of rows under 16-byte keys, up to a number of bytes."""

    @property
    def num_bytes(self) -> int: ...

    def get(self, key: bytes) -> Lines | None: ...

    def put(self, key: bytes, lines: Lines) -> bool:
        """Keep a row; False if it does not fit."""
        ...

    def close(self) -> None:
        """End its use by this process."""
        ...


class MemoryStore:
    """Rows in this process's memory.

    Args:
        budget: Bytes that they may take.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._rows: dict[bytes, Lines] = {}
        self.num_bytes = 0

    def get(self, key: bytes) -> Lines | None:
        return self._rows.get(key)

    def put(self, key: bytes, lines: Lines) -> bool:
        if self.num_bytes + lines.nbytes > self._budget:
            return False
        self._rows[key] = lines
        self.num_bytes += lines.nbytes
        return True

    def close(self) -> None:
        self._rows.clear()
        self.num_bytes = 0


HEAD = struct.Struct("<16sIII")
"""Key, tokens, bytes per token, checksum of these and the states."""
SUFFIX = ".rows"


class _Place(NamedTuple):
    path: Path
    offset: int
    shape: tuple[int, int]
    checksum: int


class FolderStore:
    """Rows in files that later runs, and other processes, read too.

    Every process appends to a file of its own, and reads what the others had finished
    when it began. A row is complete and passes its checksum, or is not there, whatever
    stopped its writer.

    Args:
        folder: Made if it is not there; may be shared by all models.
        budget: Bytes that its files may take. Files that served no row to this process
            are removed, the oldest first, before a new row is refused.

    Raises:
        MachineError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder = folder
        self._budget = budget
        self._trusted: dict[bytes, _Place] = {}
        self._found: dict[bytes, list[_Place]] = {}
        self._files: dict[Path, int] = {}
        self._open: dict[Path, int] = {}
        self._own: Path | None = None
        _require_writable(folder)
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=_age):
            with contextlib.suppress(FileNotFoundError):
                self._files[path] = path.stat().st_size
                for key, place in _scan(path):
                    self._found.setdefault(key, []).append(place)

    @property
    def num_bytes(self) -> int:
        return sum(self._files.values())

    def get(self, key: bytes) -> Lines | None:
        if key in self._trusted:
            return self._read(self._trusted[key])
        for place in self._found.pop(key, ()):
            lines = self._read(place)
            if lines is not None and _checksum(key, lines) == place.checksum:
                self._trusted[key] = place
                return lines
        return None

    def put(self, key: bytes, lines: Lines) -> bool:
        needed = HEAD.size + lines.nbytes
        if not self._make_room(needed):
            return False
        checksum = _checksum(key, lines)
        record = HEAD.pack(key, *lines.shape, checksum) + lines.tobytes()
        try:
            path = self._own_file()
            offset = self._files[path]
            _append(self._open[path], record, offset)
        except OSError:  # the disk is full: as if the budget were
            self._budget = 0
            return False
        self._files[path] += needed
        shape = (lines.shape[0], lines.shape[1])
        self._trusted[key] = _Place(path, offset + HEAD.size, shape, checksum)
        return True

    def close(self) -> None:
        """Close the files; the rows stay on disk."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()
        self._trusted.clear()
        self._found.clear()

    def _read(self, place: _Place) -> Lines | None:
        lines = np.empty(place.shape, np.uint8)
        try:
            if place.path not in self._open:
                self._open[place.path] = os.open(place.path, os.O_RDONLY)
                os.utime(place.path)
            done = os.preadv(self._open[place.path], [lines.data], place.offset)
        except OSError:  # removed by another process that needed room
            return None
        return lines if done == lines.nbytes else None

    def _own_file(self) -> Path:
        if self._own is None:
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._files[path] = 0
            self._own = path
        return self._own

    def _make_room(self, needed: int) -> bool:
        if needed > self._budget:
            return False
        for path in list(self._files):
            if self.num_bytes + needed <= self._budget:
                break
            if path not in self._open:
                path.unlink(missing_ok=True)
                del self._files[path]
        return self.num_bytes + needed <= self._budget


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise MachineError(
            "The states of frozen blocks cannot be written here.",
            where=str(folder),
            hint="Name a folder that you may write to.",
        )


def _checksum(key: bytes, lines: Lines) -> int:
    head = HEAD.pack(key, *lines.shape, 0)
    return zlib.crc32(lines.data, zlib.crc32(head))


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _append(handle: int, record: bytes, offset: int) -> None:
    """Write all of a record at ``offset``, or leave the file as it was."""
    try:
        done = 0
        while done < len(record):
            done += os.pwrite(handle, record[done:], offset + done)
    except BaseException:
        os.ftruncate(handle, offset)
        raise


def _scan(path: Path) -> Generator[tuple[bytes, _Place]]:
    """The rows of a file up to a torn one; their checksums are not looked at."""
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset + HEAD.size <= size:
            file.seek(offset)
            key, num_tokens, width, checksum = HEAD.unpack(file.read(HEAD.size))
            offset += HEAD.size
            if offset + num_tokens * width > size:
                return
            yield key, _Place(path, offset, (num_tokens, width), checksum)
            offset += num_tokens * width
