"""The files that rows come in, by the ends of their names, and what they are refused for.

Each reader yields records with their place, and in the place of a record that cannot be
used an error; it holds one row in memory, not the file.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mlx_rsft.data import encodings, json_rows, parquet, tables
from mlx_rsft.data.conversation import Row
from mlx_rsft.data.encodings import AUTO
from mlx_rsft.errors import DataError

Found = Iterator[Row | DataError]
PARQUET, GZIP = ".parquet", ".gz"


def _whole_text(path: Path, encoding: str, name: str) -> Found:
    """A plain text as one row; JSON lines by another name are read as such."""
    with encodings.open_text(path, encoding, newline=None) as file:
        text = file.read(encodings.MOST)
    if len(text) == encodings.MOST:
        raise encodings.too_long(name)
    first = text.lstrip().partition("\n")[0].strip()
    if first.startswith("{") and first.endswith("}"):
        yield from json_rows.read(path, encoding, name)
    elif broken := encodings.refuse_undecoded(text, name):
        yield broken
    elif text.strip():
        yield Row({"text": text}, name)


CONTAINERS: dict[str, Callable[[Path, str, str], Found]] = {
    ".jsonl": json_rows.read,
    ".ndjson": json_rows.read,
    ".json": json_rows.read,
    ".csv": tables.read,
    ".tsv": tables.read,
    ".parquet": parquet.read,
    ".txt": _whole_text,
    ".md": _whole_text,
}
TABLES = (".csv", ".tsv", PARQUET)
TEXTS = (".txt", ".md")
"""Those that are one row each."""
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; save it as CSV or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\x1f\x8b": "packed by gzip; let its name end in .gz",
    b"(\xb5/\xfd": "packed by zstd; unpack it",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"%PDF": "a PDF; save its text",
    b"SQLite format 3": "a database; save its table as CSV",
}
"""First bytes of files that people pass by mistake, and what to do with them."""


def kind(path: Path) -> str:
    """The suffix that tells how a file is read, without ``.gz``."""
    return Path(path.name.lower().removesuffix(GZIP)).suffix


def read(path: Path, encoding: str = AUTO) -> Found:
    """The rows of one file, and in their place those that are none.

    Args:
        path: A file whose suffix is in ``CONTAINERS``; any other is JSON lines.
        encoding: Of its text; ``auto`` as ``encodings.encoding_of`` finds it.

    Raises:
        ConfigError: If there is no such encoding.
        DataError: If the file cannot be read or has no rows.
    """
    encodings.check(encoding)
    name = str(path).encode(errors="backslashreplace").decode()
    found = False
    try:
        _check_kind(path, name)
        if encoding == AUTO:
            encoding = encoding_of(path)
        for row in CONTAINERS.get(kind(path), json_rows.read)(path, encoding, name):
            found = True
            yield row
    except UnicodeError as problem:
        raise encodings.undecodable(path, encoding, problem) from None
    except (OSError, EOFError, zlib.error) as problem:
        said = getattr(problem, "strerror", None) or problem
        raise DataError(f"The file cannot be read ({said}).", where=name) from None
    if not found:
        raise DataError("The file holds no rows.", where=name)


def _check_kind(path: Path, name: str) -> None:
    """Raise DataError for what would block, or can only be read as nonsense."""
    if not stat.S_ISREG(path.stat().st_mode):
        what = "a folder" if path.is_dir() else "no regular file"
        raise DataError(f"This is {what}.", where=name, hint="Pass a data file.")
    with path.open("rb") as file:
        start = file.read(16)
    for mark, said in FOREIGN.items():
        expected = (mark == b"PAR1" and kind(path) == PARQUET) or (
            mark == b"\x1f\x8b" and path.name.lower().endswith(GZIP)
        )
        if start.startswith(mark) and not expected:
            what, _, advice = said.partition("; ")
            advice = f"{advice[:1].upper()}{advice[1:]}."
            raise DataError(f"The file is {what}.", where=name, hint=advice)


def is_table(path: Path) -> bool:
    """Whether all rows of the file have the same columns."""
    return kind(path) in TABLES


USUAL = ("", "utf-8", "utf-8-sig")
"""Encodings that need no word: UTF-8, and none."""


def encoding_of(path: Path) -> str:
    """The encoding that a file is read in where none is named; none for Parquet."""
    return "" if kind(path) == PARQUET else encodings.encoding_of(path)
