"""From a file or folder to rows, each knowing its ``file:line``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import DataError, nearest

TRAIN, VALID, TEST = "train", "valid", "test"


def find_splits(source: Path) -> dict[str, Path]:
    """The splits of a data folder by name; a single file is one split.

    ``train.jsonl`` and ``valid.jsonl`` are named by their stems, ``test_shifted.jsonl``
    is ``shifted``, and ``test.jsonl`` is ``test``.

    Raises:
        DataError: If there is nothing to read.
    """
    if source.is_file():
        return {_split_name(source): source}
    if not source.is_dir():
        raise DataError(
            "There is no such file or folder.", where=str(source), hint="Check --data."
        )
    splits = {
        _split_name(path): path
        for path in sorted(source.glob("*.jsonl"))
        if path.stem in (TRAIN, VALID) or path.stem.split("_")[0] == TEST
    }
    if not splits:
        raise DataError(
            "The folder holds no train.jsonl, valid.jsonl or test*.jsonl.",
            where=str(source),
        )
    return splits


def _split_name(path: Path) -> str:
    return path.stem.removeprefix("test_")


def training_file(source: Path) -> Path:
    """The file with the rows to train on: the file itself, or the split ``train``.

    Raises:
        DataError: If there is none.
    """
    splits = find_splits(source)
    return source if source.is_file() else pick(splits, TRAIN, source)


def pick(splits: dict[str, Path], name: str, source: Path) -> Path:
    """The file of one split.

    Raises:
        DataError: If the source has no such split.
    """
    if name not in splits:
        raise DataError(
            f"There is no split {name!r}.",
            where=str(source),
            hint=nearest(name, splits),
        )
    return splits[name]


def read(path: Path) -> Iterator[Row | DataError]:
    """The rows of one JSON-lines file, and in their place those that are none.

    Blank lines are allowed, and counted.

    Raises:
        DataError: If the file cannot be read or has no rows.
    """
    found = False
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    found = True
                    yield _row(line, f"{path}:{number}")
    except UnicodeDecodeError as problem:
        raise DataError(
            f"The file is not UTF-8 text ({problem.reason} at byte {problem.start}).",
            where=str(path),
            hint="Save it as UTF-8.",
        ) from None
    except OSError as problem:
        raise DataError(
            f"The file cannot be read ({problem.strerror}).", where=str(path)
        ) from None
    if not found:
        raise DataError("The file holds no rows.", where=str(path))


def _row(line: str, where: str) -> Row | DataError:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as problem:
        return DataError(
            f"Not valid JSON: {problem.msg} at column {problem.colno}.", where=where
        )
    except RecursionError:
        return DataError("Nested too deeply.", where=where)
    if not isinstance(record, dict):
        return DataError(
            f"Expected a JSON object, found {type(record).__name__}.", where=where
        )
    return Row(record, where)
