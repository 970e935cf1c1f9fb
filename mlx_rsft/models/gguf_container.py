"""The container of a GGUF file: metadata and tensors, every length checked first.

A file comes from strangers. So a length is compared with the bytes that are there
before anything of that length is made or walked through, and what is refused is named.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MOST_DIMENSIONS = 4
# Twice what the largest vocabularies take, 262,144 tokens with 514,906 merges.
MOST_BYTES_BEFORE_DATA = 32 << 20
MOST_IN_A_LIST = 1 << 20
STRING, ARRAY = 8, 9
NUMBERS: dict[int, str] = {
    # value type in the file: NumPy's name
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


class Tensor(NamedTuple):
    """One tensor: its block type, its shape (rows first), its bytes row by row."""

    kind: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


class Container(NamedTuple):
    """Metadata by key, tensors by name; the tensors' bytes stay on disk.

    ``kinds`` has the value type of each key, of a list also that of its entries.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    kinds: dict[str, tuple[int, ...]]


def read(path: Path) -> Container:
    """Read what is before the tensors' bytes, and find those.

    Raises:
        ModelError: If the file is not GGUF, is cut short, or claims what it does not
            hold; if it was made for big-endian machines.
    """
    check_magic(path)
    everything = np.memmap(path, np.uint8, "r").view(np.ndarray)
    cursor = _Cursor(path, everything)
    cursor.skip(len(MAGIC))
    version = cursor.integer("<I", "the version")
    if version & 0xFFFF == 0:
        cursor.refuse("this GGUF file is for big-endian machines.")
    if version not in VERSIONS:
        cursor.refuse(f"this GGUF file is of version {version}; known are 2 and 3.")
    num_tensors = cursor.integer("<Q", "the number of tensors")
    keys = cursor.integer("<Q", "the number of metadata keys")
    metadata: dict[str, Any] = {}
    kinds: dict[str, tuple[int, ...]] = {}
    for _ in range(keys):
        key = cursor.text("a metadata key")
        if key in metadata:
            cursor.damaged(f"the metadata key {key!r} is there twice")
        kinds[key], metadata[key] = cursor.value(repr(key))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        cursor.damaged(f"'general.alignment' is {alignment!r}, not a power of two")
    entries = [_entry(cursor) for _ in range(num_tensors)]
    start = _aligned(cursor.at, alignment)
    tensors = dict(_placed(cursor, entries, start, alignment))
    return Container(metadata, tensors, kinds)


def check_magic(path: Path) -> None:
    """Raise a ModelError unless there is a file that starts as GGUF files do."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as problem:
        message = f"this file cannot be read ({problem.strerror})."
        raise ModelError(message, where=str(path)) from problem
    if start != MAGIC:
        raise ModelError(
            f"not a GGUF file: it starts with {start!r}, not {MAGIC!r}.",
            where=str(path),
        )


class _Cursor:
    """Reads forward through the part before the tensors' bytes."""

    def __init__(self, path: Path, everything: NDArray[np.uint8]) -> None:
        self.path = path
        self.everything = everything
        self.at = 0
        self._seen = everything[:MOST_BYTES_BEFORE_DATA].data

    def skip(self, size: int) -> None:
        self.at += size

    def refuse(self, message: str, *, hint: str = "") -> NoReturn:
        raise ModelError(message, where=str(self.path), hint=hint)

    def damaged(self, reason: str) -> NoReturn:
        self.refuse(
            f"this GGUF file is cut short or damaged ({reason}).",
            hint="Download it again and compare its size or checksum.",
        )

    def integer(self, code: str, what: str) -> int:
        return struct.unpack(code, self._take(struct.calcsize(code), what))[0]

    def text(self, what: str) -> str:
        taken = self._take(self.integer("<Q", what), what)
        try:
            return str(taken, "utf-8")
        except UnicodeDecodeError:
            self.damaged(f"{what} is not UTF-8 text")

    def value(self, what: str) -> tuple[tuple[int, ...], Any]:
        """Its value type, of a list also that of its entries; the value."""
        kind = self.integer("<I", what)
        if kind == ARRAY:
            inner = self.integer("<I", what)
            return (ARRAY, inner), self._list(inner, what)
        if kind == STRING:
            return (kind,), self.text(what)
        return (kind,), self._numbers(kind, 1, what)[0]

    def _list(self, kind: int, what: str) -> list[Any]:
        count = self.integer("<Q", what)
        if kind != STRING:
            return self._numbers(kind, count, what)
        if 8 * count > len(self._seen) - self.at:
            self._short(8 * count, what)
        if count > MOST_IN_A_LIST:
            self.refuse(f"{what} has {count} texts; {MOST_IN_A_LIST} are the most.")
        return [self.text(what) for _ in range(count)]

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in NUMBERS:
            self.damaged(f"{what} is of the value type {kind}, which is none")
        numbers = np.dtype(NUMBERS[kind])
        taken = self._take(count * numbers.itemsize, what)
        return np.frombuffer(taken, numbers).tolist()

    def _take(self, size: int, what: str) -> memoryview:
        end = self.at + size
        if end > len(self._seen):
            self._short(size, what)
        taken = self._seen[self.at : end]
        self.at = end
        return taken

    def _short(self, size: int, what: str) -> NoReturn:
        left = len(self._seen) - self.at
        if self.at + size <= len(self.everything):
            most = MOST_BYTES_BEFORE_DATA >> 20
            self.refuse(f"{what} ends after {most} MiB; no model's metadata do.")
        self.damaged(f"{what} takes {size} bytes, {left} are left")


class _Entry(NamedTuple):
    name: str
    kind: str
    shape: tuple[int, ...]
    bytes_per_row: int
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape[:-1]) * self.bytes_per_row


def _entry(cursor: _Cursor) -> _Entry:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.text("a tensor's name")
    what = f"the tensor {name!r}"
    count = cursor.integer("<I", what)
    if not 1 <= count <= MOST_DIMENSIONS:
        cursor.damaged(f"{what} has {count} dimensions")
    sizes = tuple(cursor.integer("<Q", what) for _ in range(count))
    number = cursor.integer("<I", what)
    offset = cursor.integer("<Q", what)
    if number not in GGML_QUANT_SIZES:
        cursor.refuse(f"{what} is of the block type {number}, which is unknown.")
    kind = GGMLQuantizationType(number)
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    if min(sizes) < 1 or sizes[0] % per_block:
        cursor.damaged(f"{what} of type {kind.name} has the dimensions {sizes}")
    row = sizes[0] // per_block * block_bytes
    return _Entry(name, kind.name, sizes[::-1], row, offset)


def _placed(
    cursor: _Cursor, entries: list[_Entry], start: int, alignment: int
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor's bytes: one after the other, none of them claimed twice."""
    names: set[str] = set()
    expected = 0
    for entry in entries:
        what = f"the tensor {entry.name!r}"
        if entry.name in names:
            cursor.damaged(f"{what} is there twice")
        names.add(entry.name)
        if entry.offset != expected:
            cursor.damaged(f"{what} starts at {entry.offset}, not at {expected}")
        first = start + entry.offset
        left = max(0, len(cursor.everything) - first)
        if entry.size > left:
            cursor.damaged(f"{what} takes {entry.size} bytes, {left} are left")
        data = cursor.everything[first : first + entry.size]
        rows = data.reshape(*entry.shape[:-1], entry.bytes_per_row)
        yield entry.name, Tensor(entry.kind, entry.shape, rows)
        expected = _aligned(entry.offset + entry.size, alignment)


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
