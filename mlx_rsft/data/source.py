"""From a file or folder to rows, each knowing its ``file:line``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlx_rsft.data import containers
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError, nearest

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
    splits: dict[str, Path] = {}
    for path in sorted(source.iterdir()):
        stem = _stem(path)
        wanted = stem in (TRAIN, VALID) or stem.split("_")[0] == TEST
        if not wanted or containers.kind(path) not in containers.CONTAINERS:
            continue
        name = _split_name(path)
        if name in splits:
            raise DataError(
                f"The split {name!r} is there twice: {splits[name].name}, {path.name}.",
                where=str(source),
                hint="Remove one, or pass a file instead of the folder.",
            )
        splits[name] = path
    if not splits:
        raise DataError(
            "The folder holds no train.jsonl, valid.jsonl or test*.jsonl (nor .json, "
            ".csv, .tsv or .parquet of those names).",
            where=str(source),
        )
    return splits


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _split_name(path: Path) -> str:
    return _stem(path).removeprefix("test_")


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


def read(
    path: Path, columns: Mapping[str, str] | None = None, encoding: str = AUTO
) -> Iterator[Row | DataError]:
    """The rows of one file, and in their place those that are none.

    Args:
        path: JSON lines, a JSON array, a table, Parquet; gzipped or not.
        columns: New name by old name, for files that call their columns otherwise.
        encoding: Of its text.

    Raises:
        DataError: If the file cannot be read or has no rows.
    """
    for row in containers.read(path, encoding):
        yield row if isinstance(row, DataError) else _renamed(row, columns or {})


def _renamed(row: Row, columns: Mapping[str, str]) -> Row | DataError:
    for old in columns:
        if old not in row.record:
            return DataError(
                f"The row has no column {old!r}.",
                where=row.where,
                hint=f"{nearest(old, row.record)} Check --map.",
            )
    return Row({columns.get(key, key): v for key, v in row.record.items()}, row.where)


def parse_columns(text: Sequence[str]) -> dict[str, str]:
    """The columns that ``old=new`` names rename.

    Raises:
        ConfigError: If one of them has no ``=``.
    """
    columns: dict[str, str] = {}
    for part in text:
        old, equals, new = part.partition("=")
        if not (old and equals and new):
            raise ConfigError(
                f"{part!r} renames nothing.",
                where="data.map",
                hint="Write it like question=prompt,answer=completion.",
            )
        columns[old] = new
    return columns
