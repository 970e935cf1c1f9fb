"""The header of a safetensors file, checked before anything believes it.

mlx reads a file as its header says, so a header that lies is to be found first. The
format: 8 bytes of length, JSON of that length, then the tensors' bytes.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import mlx.core as mx

from mlx_rsft.errors import ModelError

MOST_HEADER = 16 << 20
"""A header of this many bytes names a hundred thousand tensors."""
MOST_AXES = 8
SIZES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "BOOL": 1,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
}

FRACTIONS = ("F64", "F32", "F16", "BF16")


class Entry(NamedTuple):
    """One tensor as its file describes it."""

    dtype: str
    shape: tuple[int, ...]


def entries(path: Path) -> dict[str, Entry]:
    """What is in a file, by name; reads its header alone.

    Raises:
        ModelError: If the file is not whole, or its header contradicts it.
    """
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            start = file.read(8)
            if len(start) < 8:
                _refuse(path, f"it has {total} bytes")
            (length,) = struct.unpack("<Q", start)
            if length > min(total - 8, MOST_HEADER):
                _refuse(path, f"its header claims {length} bytes of {total}")
            text = file.read(length)
    except OSError as problem:
        raise ModelError(
            f"The file cannot be read ({problem.strerror}).", where=str(path)
        ) from None
    return _checked(path, text, total - 8 - length)


def check_fractions(path: Path) -> dict[str, Entry]:
    """The same of a file that is to hold nothing but fractions.

    Raises:
        ModelError: If it holds anything else, or for what ``entries`` raises it.
    """
    found = entries(path)
    for name, entry in found.items():
        if entry.dtype not in FRACTIONS:
            raise ModelError(
                f"{name[:80]!r} holds {entry.dtype}, no fractions.", where=str(path)
            )
    return found


def write(path: Path, tensors: Mapping[str, mx.array]) -> None:
    """Save tensors, and see that they have all got there: mlx does not say if not.

    Raises:
        OSError: If they have not, because the disk is full for instance.
    """
    try:
        mx.save_safetensors(str(path), dict(tensors))
        entries(path)
    except (RuntimeError, ModelError) as problem:
        raise OSError(errno.EIO, str(problem), str(path)) from problem


def _checked(path: Path, text: bytes, data_bytes: int) -> dict[str, Entry]:
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        _refuse(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    found: dict[str, Entry] = {}
    taken: list[tuple[int, int]] = []
    for name, told in header.items():
        try:
            entry, begin, end = _entry(told)
        except (TypeError, KeyError, ValueError):
            _refuse(path, f"the header's entry of {name[:80]!r} makes no sense")
        if not 0 <= begin <= end <= data_bytes:
            _refuse(path, f"{name[:80]!r} lies outside of it, at {begin} to {end}")
        found[name] = entry
        taken.append((begin, end))
    taken.sort()
    if any(later[0] < one[1] for one, later in itertools.pairwise(taken)):
        _refuse(path, "tensors overlap in it")
    return found


def _entry(told: Any) -> tuple[Entry, int, int]:
    shape, (begin, end) = told["shape"], told["data_offsets"]
    numbers = (*shape, begin, end)
    if len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError
    if end - begin != SIZES[told["dtype"]] * math.prod(shape):
        raise ValueError
    return Entry(told["dtype"], tuple(shape)), begin, end


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ModelError(
        f"This is no whole safetensors file: {reason}.",
        where=str(path),
        hint="Copy or download it again.",
    )
