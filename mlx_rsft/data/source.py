"""From a file or folder to splits and rows, each row knowing its ``file:line``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlx_rsft.data import containers, splits
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError, nearest

TRAIN, VALID, TEST = splits.TRAIN, splits.VALID, splits.TEST


def find_splits(place: Path) -> dict[str, list[Path]]:
    """The files of each split of a data folder; a single file is one split.

    ``train.jsonl`` and ``valid.jsonl`` are named by their stems, ``test_shifted.jsonl``
    is ``shifted``, and ``test.jsonl`` is ``test``. A split may be cut into files such as
    ``train-00000-of-00003.parquet``, and all may lie in a folder ``data``.

    Raises:
        DataError: If there is nothing to read, a split is there twice, or not whole.
    """
    if place.is_file():
        return {splits.part(place).split: [place]}
    if not place.is_dir():
        raise DataError(
            "There is no such file or folder.", where=str(place), hint="Check --data."
        )
    found = splits.by_name([*place.iterdir(), *place.glob("data/*")], place)
    if not found:
        raise DataError(
            "The folder holds no train.jsonl, valid.jsonl or test*.jsonl (nor .json, "
            ".csv, .tsv or .parquet of those names).",
            where=str(place),
        )
    return found


def training_files(found: Mapping[str, list[Path]], place: Path) -> list[Path]:
    """The files with the rows to train on: the file itself, or the split ``train``.

    Raises:
        DataError: If there is none.
    """
    (first, *_) = found.values()
    return first if place.is_file() else pick(found, TRAIN, place)


def pick(found: Mapping[str, list[Path]], name: str, place: Path) -> list[Path]:
    """The files of one split.

    Raises:
        DataError: If the source has no such split.
    """
    if name not in found:
        raise DataError(
            f"There is no split {name!r}.", where=str(place), hint=nearest(name, found)
        )
    return found[name]


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
