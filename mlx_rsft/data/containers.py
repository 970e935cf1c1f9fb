"""The files that rows come in: JSON lines, a JSON array, a spreadsheet, Parquet.

Each reader yields records with their place; text may be gzipped, and in the encodings
that spreadsheet programs write.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError, MachineError

AUTO = "auto"
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SEPARATORS = (",", ";", "\t")
Found = Iterator[Row | DataError]


def _json_lines(path: Path, encoding: str) -> Found:
    with _text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _line(line, f"{path}:{number}")


def _line(line: str, where: str) -> Row | DataError:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as problem:
        return DataError(
            f"Not valid JSON: {problem.msg} at column {problem.colno}.", where=where
        )
    except RecursionError:
        return DataError("Nested too deeply.", where=where)
    return _row(record, where)


def _row(record: object, where: str) -> Row | DataError:
    if not isinstance(record, dict):
        return DataError(
            f"Expected a JSON object, found {type(record).__name__}.", where=where
        )
    return Row(record, where)


def _json_array(path: Path, encoding: str) -> Found:
    with _text(path, encoding) as file:
        try:
            records = json.load(file)
        except json.JSONDecodeError as problem:
            raise DataError(
                f"Not valid JSON: {problem.msg} at column {problem.colno}.",
                where=f"{path}:{problem.lineno}",
                hint="A file with one object per line is to be named .jsonl.",
            ) from None
        except RecursionError:
            raise DataError("Nested too deeply.", where=str(path)) from None
    if not isinstance(records, list):
        raise DataError(
            f"Expected a JSON array, found {type(records).__name__}.", where=str(path)
        )
    for number, record in enumerate(records, start=1):
        yield _row(record, f"{path}: item {number}")


def _table(path: Path, encoding: str) -> Found:
    """A table with named columns; commas, semicolons or tabs, told by the header."""
    csv.field_size_limit(sys.maxsize)
    with _text(path, encoding) as file:
        header = file.readline()
        separator = max(SEPARATORS, key=header.count)
        names = next(csv.reader([header], delimiter=separator), [])
        names = [name.strip() for name in names]
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            for values in rows:
                where = f"{path}:{rows.line_num + 1}"
                if any(value.strip() for value in values):
                    yield _cells(names, values, where)
        except csv.Error as problem:
            where = f"{path}:{rows.line_num + 1}"
            raise DataError(f"Not a valid table: {problem}.", where=where) from None


def _cells(names: list[str], values: list[str], where: str) -> Row | DataError:
    if len(values) != len(names):
        return DataError(
            f"The row has {len(values)} cells, the header {len(names)}.",
            where=where,
            hint="Put cells that hold the separator or a line break into quotes.",
        )
    return Row(dict(zip(names, values, strict=True)), where)


def _parquet(path: Path, encoding: str) -> Found:
    del encoding
    if find_spec("pyarrow") is None:
        raise MachineError(
            "Parquet files need the package pyarrow.",
            where=str(path),
            hint="Install it with: pip install 'mlx-rsft[data]'.",
        )
    from pyarrow import ArrowInvalid, parquet  # pyright: ignore

    library: Any = parquet
    try:
        number = 0
        with library.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{path}: row {number}")
    except ArrowInvalid as problem:
        raise DataError(f"Not a Parquet file: {problem}.", where=str(path)) from None


CONTAINERS: dict[str, Callable[[Path, str], Found]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
}


def kind(path: Path) -> str:
    """The suffix that tells how a file is read, without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read(path: Path, encoding: str = AUTO) -> Found:
    """The rows of one file, and in their place those that are none.

    Args:
        path: A file whose suffix is in ``CONTAINERS``; any other is JSON lines.
        encoding: Of its text; ``auto`` is UTF-8, or what the file's first bytes say.

    Raises:
        ConfigError: If there is no such encoding.
        DataError: If the file cannot be read or has no rows.
    """
    _check_encoding(encoding)
    found = False
    try:
        for row in CONTAINERS.get(kind(path), _json_lines)(path, encoding):
            found = True
            yield row
    except UnicodeError as problem:
        raise DataError(
            f"The text is not {_said(encoding)} ({problem}).",
            where=str(path),
            hint="Save it as UTF-8, or name what it is, such as --encoding shift_jis.",
        ) from None
    except (OSError, EOFError) as problem:
        raise DataError(
            f"The file cannot be read ({problem}).", where=str(path)
        ) from None
    if not found:
        raise DataError("The file holds no rows.", where=str(path))


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup("utf-8" if encoding == AUTO else encoding)
    except LookupError:
        raise ConfigError(
            f"There is no encoding {encoding!r}.",
            where="data.encoding",
            hint="Such as utf-8, utf-16, shift_jis, cp1252.",
        ) from None


def _said(encoding: str) -> str:
    return "UTF-8" if encoding == AUTO else encoding


def _text(path: Path, encoding: str) -> IO[str]:
    opened: Any = gzip.open if path.name.endswith(".gz") else open
    if encoding == AUTO:
        with opened(path, "rb") as file:
            start = file.read(4)
        fitting = [name for mark, name in MARKS.items() if start.startswith(mark)]
        encoding = fitting[0] if fitting else "utf-8"
    # Without newline="" a line break inside a quoted cell would be changed.
    return io.TextIOWrapper(opened(path, "rb"), encoding=encoding, newline="")
