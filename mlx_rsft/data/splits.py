"""Which file belongs to which split, told by its name alone.

``train.jsonl`` is one file, ``train-00000-of-00003.parquet`` the first of three; both may
lie in a folder ``data``. Everything that starts with ``test_`` is a split of its own, and
so is what starts with ``valid_``: rows that have shifted, to choose by and not to test on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_rsft.data import containers
from mlx_rsft.errors import DataError

TRAIN, VALID, TEST = "train", "valid", "test"
NAMES = {
    TRAIN: TRAIN,
    VALID: VALID,
    "validation": VALID,
    "val": VALID,
    "dev": VALID,
    TEST: TEST,
}
SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")
UNCOUNTED = re.compile(rf"(?P<split>{'|'.join(NAMES)})-(?P<number>\d+)", re.IGNORECASE)
"""Only of plain names: ``test_plant-2`` is a split of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the name of a file says: its split, and which of how many shards it is.

    ``number`` is None for a file that is a whole split, ``count`` where no name tells.
    """

    stem: str
    number: int | None = None
    count: int | None = None

    @property
    def is_named(self) -> bool:
        """Whether a folder's file of this name is a split at all."""
        own = self.stem.startswith((f"{TEST}_", f"{VALID}_"))
        return own or self.stem.lower() in NAMES

    @property
    def split(self) -> str:
        if known := NAMES.get(self.stem.lower()):
            return known
        shifted = self.stem.removeprefix(f"{TEST}_")
        # A test split called "train" would be trained on, "valid_x" chosen by.
        taken = shifted.lower() in ("", *NAMES) or is_validation(shifted)
        return self.stem if taken else shifted


def is_validation(name: str) -> bool:
    """Whether a split is there to choose by: ``valid``, or a shifted ``valid_NAME``."""
    return name == VALID or name.startswith(f"{VALID}_")


def part(path: Path) -> Part:
    """The part of a split that a file's name speaks of."""
    stem = Path(path.name.removesuffix(".gz")).stem
    if shard := SHARD.fullmatch(stem):
        return Part(shard["split"], int(shard["number"]), int(shard["count"]))
    if shard := UNCOUNTED.fullmatch(stem):
        return Part(shard["split"], int(shard["number"]))
    return Part(stem)


def by_name(paths: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in the order of their shards; other files left out.

    Raises:
        DataError: If a split is there twice, or a shard is missing.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        if part(path).is_named and containers.kind(path) in containers.CONTAINERS:
            found.setdefault(part(path).split, []).append(path)
    return {name: _in_order(name, files, folder) for name, files in found.items()}


def _in_order(name: str, files: list[Path], folder: Path) -> list[Path]:
    parts = {path: part(path) for path in files}
    numbers = [parts[path].number for path in files]
    counts = {parts[path].count for path in files}
    if len(files) > 1 and (None in numbers or len(set(numbers)) < len(files)):
        said = ", ".join(str(path.relative_to(folder)) for path in files)
        raise DataError(
            f"The split {name!r} is there twice: {said}.",
            where=str(folder),
            hint="Remove one, or pass a file instead of the folder.",
        )
    for count in counts - {None}:
        missing = sorted(set(range(count or 0)) - set(numbers))
        lacks = f"number {missing[0]} is missing" if missing else "some say another"
        if missing or len(counts) > 1:
            raise DataError(
                f"The split {name!r} is not whole: of {count} files {lacks}.",
                where=str(folder),
                hint="Fetch all of them, or pass a file instead of the folder.",
            )
    return sorted(files, key=lambda path: parts[path].number or 0)
