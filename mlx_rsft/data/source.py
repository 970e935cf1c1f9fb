"""From a file or folder to splits and rows, each row knowing its ``file:line``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlx_rsft.data import containers, hub, splits
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError, nearest

TRAIN, VALID, TEST = splits.TRAIN, splits.VALID, splits.TEST
MOST_NAMED = 20


def find_splits(place: Path) -> dict[str, list[Path]]:
    """The files of each split of a data folder; a single file is one split.

    ``train.jsonl``, ``valid.jsonl`` and ``valid_shifted.jsonl`` are named by their stems,
    ``test_shifted.jsonl`` is ``shifted``, and ``test.jsonl`` is ``test``. A split may be cut into files such as
    ``train-00000-of-00003.parquet``, and all may lie in a folder ``data``. A folder of
    plain texts is the split ``train``, and ``hf:owner/name`` is fetched from the Hub.

    Raises:
        DataError: If there is nothing to read, a split is there twice, or not whole.
    """
    if str(place).startswith(hub.PREFIX):
        return hub.find_splits(str(place))
    try:
        if place.is_file():
            return {splits.part(place).split: [place]}
        if not place.is_dir():
            what = (
                "It is neither a file nor a folder."
                if place.exists()
                else "There is no such file or folder."
            )
            raise DataError(what, where=str(place), hint="Check --data.")
        inside = sorted([*place.iterdir(), *place.glob("data/*")])
    except OSError as problem:
        raise DataError(
            f"The folder cannot be read ({problem.strerror}).", where=str(place)
        ) from None
    found = splits.by_name(inside, place) or _texts(inside)
    if not found:
        raise DataError(
            "The folder holds no train.jsonl, valid.jsonl or test*.jsonl (nor .json, "
            ".csv, .tsv or .parquet of those names), and no .txt or .md.",
            where=str(place),
        )
    return found


def _texts(inside: Sequence[Path]) -> dict[str, list[Path]]:
    texts = [
        path
        for path in inside
        if containers.kind(path) in containers.TEXTS
        and not path.name.lower().startswith((".", "readme"))
    ]
    return {TRAIN: texts} if texts else {}


def training_files(found: Mapping[str, list[Path]], place: Path) -> list[Path]:
    """The files with the rows to train on: the split ``train``, or the only one named.

    Raises:
        DataError: If there is none.
    """
    (first, *_) = found.values()
    return first if is_one_split(place) else pick(found, TRAIN, place)


def is_one_split(place: Path) -> bool:
    """Whether the user named a file, or one split of a data set."""
    if str(place).startswith(hub.PREFIX):
        return hub.address(str(place)).split is not None
    return place.is_file()


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
        path: JSON lines, a JSON array, a table, Parquet, a text; gzipped or not.
        columns: New name by old name, for files that call their columns otherwise.
        encoding: Of its text.

    Raises:
        DataError: If the file cannot be read, has no rows, or is a table without one of
            the columns.
    """
    rows = containers.read(path, encoding)
    return _renamed(rows, columns, containers.is_table(path)) if columns else rows


def _renamed(
    rows: Iterator[Row | DataError], columns: Mapping[str, str], is_table: bool
) -> Iterator[Row | DataError]:
    for row in rows:
        if isinstance(row, DataError):
            yield row
            continue
        problem = _lacking(row, columns)
        if problem and is_table:
            raise problem
        yield problem or Row(
            {columns.get(key, key): value for key, value in row.record.items()},
            row.where,
        )


def _lacking(row: Row, columns: Mapping[str, str]) -> DataError | None:
    for old, new in columns.items():
        if new in row.record and new not in columns:
            return DataError(
                f"There is a column {new!r} already.",
                where=row.where,
                hint=f"Rename it too, such as {new}=old_{new}. Check --map.",
            )
        if old not in row.record:
            return DataError(
                f"There is no column {old!r}.",
                where=row.where,
                hint=f"{nearest(old, list(row.record)[:MOST_NAMED])} Check --map.",
            )
    return None


def parse_columns(text: Sequence[str]) -> dict[str, str]:
    """The columns that ``old=new`` names rename.

    Raises:
        ConfigError: If one of them has no ``=``, or a name is there twice.
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
        if old in columns or new in columns.values():
            raise ConfigError(
                f"{part!r} names a column a second time.", where="data.map"
            )
        columns[old] = new
    return columns
