"""Rows of Parquet files, as plain values: what JSON could have said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import DataError, MachineError

ROWS = 1024
"""Rows that are in memory at a time."""
Found = Iterator[Row | DataError]


def read(path: Path, encoding: str, name: str) -> Found:
    """The rows of a Parquet file; it knows its ``encoding`` itself.

    Raises:
        MachineError: If there is nothing to read such files with.
        DataError: If it is none.
    """
    del encoding
    if find_spec("pyarrow") is None:
        raise MachineError(
            "Parquet files need the package pyarrow.",
            where=name,
            hint="Install it with: pip install 'mlx-rsft[data]'.",
        )
    from pyarrow import ArrowException, parquet  # pyright: ignore

    library: Any = parquet
    number = 0
    try:
        with library.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield _row(record, f"{name}: row {number}")
    except (ArrowException, OSError, ValueError, KeyError) as problem:
        said = (str(problem) or type(problem).__name__).splitlines()[0]
        where = f"{name}: after row {number}" if number else name
        raise DataError(f"Not a readable Parquet file: {said}.", where=where) from None


def _row(record: Mapping[str, Any], where: str) -> Row | DataError:
    try:
        return Row({key: _plain(value) for key, value in record.items()}, where)
    except UnicodeDecodeError:
        return DataError("The row holds bytes that are no UTF-8 text.", where=where)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what a structure lacks is not there instead of None.

    All structures of a column have the same keys, so None cannot mean anything else.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.decode() if isinstance(value, bytes) else str(value)
