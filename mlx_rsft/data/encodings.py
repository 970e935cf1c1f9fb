"""How a file's text is encoded: by its mark, by its bytes, or as the user says.

``auto`` names an encoding only where the bytes prove it. What a Western spreadsheet wrote
(cp1252) can never be proven, so it is offered in the error and not guessed.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from mlx_rsft.errors import ConfigError, DataError

AUTO, UTF8, JAPANESE = "auto", "utf-8", "cp932"
MARKS = {  # that of UTF-32 starts with that of UTF-16, so it stands first
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CHUNK = 1 << 20
START = 1 << 12
MOST = 1 << 28
"""Letters of one row; what is longer is no row, but another kind of file."""
MANY_NULS, SOME_NULS, LEAST_NULS = 0.1, 0.02, 3
"""Shares of UTF-16 units whose upper byte is 0: with spaces and commas; commas alone.
Fewer than the last in a whole file are strays."""
LEAST_KANA, LEAST_COMMON = 0.1, 0.6
"""Shares of what is not ASCII: text by people who write Japanese, and no lucky bytes."""
KANA = re.compile("[\u3040-\u30ff]")
COMMON = re.compile("[\u3000-\u30ff\uff01-\uff5e\u4e00-\u9fff]")
UNDECODED = re.compile("[\udc80-\udcff]")
"""What ``surrogateescape`` makes of bytes that are not UTF-8."""
LINE_END = re.compile("\r\n|\r|\n")
PRIVATE = re.compile("[\x80-\x9f\ue000-\uf8ff]")
"""What codecs make of bytes that are no letter."""
SHOWN = 12


def check(encoding: str) -> None:
    """Raise ConfigError unless ``encoding`` is ``auto`` or one of a text."""
    try:
        if encoding != AUTO:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError):
        raise ConfigError(
            f"There is no encoding {encoding!r} of texts.",
            where="data.encoding",
            hint="Such as utf-8, utf-16, shift_jis, cp1252.",
        ) from None


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in ``.gz``."""
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    return opened(path, "rb")


def open_text(path: Path, encoding: str, newline: str | None = "") -> IO[str]:
    """The text of a file whose encoding is known.

    Bytes that are not UTF-8 come as lone surrogates, so that the reader can name their
    row and go on; in other encodings they raise UnicodeError.
    """
    errors = "strict"
    if codecs.lookup(encoding).name == UTF8:
        encoding, errors = "utf-8-sig", "surrogateescape"
    return io.TextIOWrapper(
        open_bytes(path), encoding=encoding, errors=errors, newline=newline
    )


def lines(file: IO[str], name: str) -> Iterator[str]:
    """The lines of a text, with their ends.

    Raises:
        DataError: At one that does not end in any reasonable length.
    """
    for number, line in enumerate(iter(partial(file.readline, MOST), ""), start=1):
        if len(line) == MOST:
            raise too_long(f"{name}:{number}")
        yield line


def too_long(where: str) -> DataError:
    """The error for a row without an end."""
    return DataError(
        f"No row ends within {MOST:,} letters.",
        where=where,
        hint="Is this a data file?",
    )


def encoding_of(path: Path) -> str:
    """The encoding that ``auto`` reads a text file in, as Python names it.

    UTF-8 with or without a mark, UTF-16 and UTF-32, and Shift_JIS (``cp932``) if the
    bytes are valid in it, are not valid UTF-8, and read like Japanese. Anything else is
    ``utf-8``, which reading then refuses with the line. Reads the whole file in pieces.
    """
    with open_bytes(path) as file:
        start = file.read(START)
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return name
    if wide := _wide(start):
        return wide
    with open_bytes(path) as file:
        is_utf8 = _decodes(file, UTF8)
    if is_utf8:
        return UTF8
    with open_bytes(path) as file:
        return JAPANESE if _is_japanese(file) else UTF8


def _wide(start: bytes) -> str:
    """UTF-16 without a mark: of every two bytes one is often zero, the other never."""
    units = len(start) // 2
    even, odd = start[::2].count(0), start[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    share = MANY_NULS if _begins(start, UTF8) else SOME_NULS
    is_often = max(even, odd) >= max(LEAST_NULS, share * units)
    is_wide = is_often and min(even, odd) <= SOME_NULS * units
    return name if is_wide and _begins(start, name) else ""


def _begins(start: bytes, encoding: str) -> bool:
    """Whether a text in the encoding may begin so; the last letter may be cut."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _pieces(file: IO[bytes], encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    while chunk := file.read(CHUNK):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _decodes(file: IO[bytes], encoding: str) -> bool:
    try:
        for _ in _pieces(file, encoding):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _is_japanese(file: IO[bytes]) -> bool:
    kana = common = foreign = 0
    try:
        for text in _pieces(file, JAPANESE):
            kana += len(KANA.findall(text))
            common += len(COMMON.findall(text))
            foreign += len(text) - len(text.encode("ascii", errors="ignore"))
    except UnicodeDecodeError:
        return False
    return kana > LEAST_KANA * foreign and common > LEAST_COMMON * foreign


def undecodable(path: Path, encoding: str, problem: UnicodeError) -> DataError:
    """The error for a file that is not in its encoding, with the line."""
    where, said, line = str(path), str(problem), 1
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    with open_bytes(path) as file:
        try:
            while chunk := file.read(CHUNK):
                line += lines.decode(chunk).count("\n")
            lines.decode(b"", final=True)
        except UnicodeDecodeError as found:
            before = found.object[: found.start].decode(found.encoding, "replace")
            where = f"{path}:{line + len(LINE_END.findall(before))}"
            said = f"byte 0x{found.object[found.start]:02x}: {found.reason}"
    return DataError(
        f"The text is not {encoding} ({said}).",
        where=where,
        hint="Save it as UTF-8, or name what it is, such as --encoding shift_jis.",
    )


def refuse_undecoded(text: str, where: str) -> DataError | None:
    """The error for a row in which bytes are not UTF-8; None if there are none."""
    found = None if text.isascii() else UNDECODED.search(text)
    if found is None:
        return None
    place = found.start()
    near = text[max(0, place - SHOWN) : place + SHOWN]
    return DataError(
        f"Not valid UTF-8: byte 0x{ord(found[0]) - 0xDC00:02x} at column {place + 1}.",
        where=where,
        hint=_offers(near.encode(errors="surrogateescape")),
    )


def _offers(raw: bytes) -> str:
    """What the bytes read as in the encodings that spreadsheets write."""
    readings: list[str] = []
    for name in ("cp1252", JAPANESE):
        try:
            reading = raw.decode(name)
        except UnicodeDecodeError:
            continue
        if PRIVATE.search(reading) is None:
            readings.append(f"{reading!r} with --encoding {name}")
    if not readings:
        return "Save the file as UTF-8, or name its --encoding."
    return f"It reads {', '.join(readings)}; or save the file as UTF-8."
