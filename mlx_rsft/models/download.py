"""One file from a URL: complete and checked, or kept so far and resumed next time."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from mlx_rsft import files
from mlx_rsft.errors import ModelError

Report = Callable[[int, int], None]
"""Told ``(done_bytes, total_bytes)`` after every piece that arrives."""

WAITS_S = (1.0, 2.0, 4.0, 8.0)
TIMEOUT_S = 60.0
PIECE_BYTES = 1 << 16
BUSY = {408, 425, 429, 500, 502, 503, 504}
RANGE_REFUSED = 416


class _Answer(Protocol):
    """What urllib returns, whatever the scheme; only HTTP has a status."""

    status: int | None
    headers: Message

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class _DroppedError(Exception):
    """The connection failed or ended early; another try may go on from there."""


def download(
    url: str,
    path: Path,
    *,
    size_bytes: int,
    sha256: str,
    report: Report | None = None,
    waits_s: Sequence[float] = WAITS_S,
) -> None:
    """Bring ``url`` to ``path``; what arrived before a failure waits in ``.partial``.

    Args:
        url: ``http``, ``https`` or ``file``; proxies are taken from the environment.
        path: Where the file appears, only once it is complete and its hash is right.
        size_bytes: Its exact size.
        sha256: Its SHA-256, in hexadecimal.
        report: Told how far it is.
        waits_s: Pauses before each further try after a dropped connection.

    Raises:
        ModelError: If the server cannot be reached, refuses, or has another file.
    """
    partial = path.with_name(f"{path.name}.partial")
    _persist(url, partial, size_bytes, report, waits_s)
    if files.sha256(partial) != sha256:
        partial.unlink()
        raise ModelError(
            f"What came from {_host(url)} as {path.name} does not have the expected "
            f"SHA-256 {sha256[:12]}...; it was deleted."
        )
    partial.replace(path)


def _persist(
    url: str,
    partial: Path,
    size_bytes: int,
    report: Report | None,
    waits_s: Sequence[float],
) -> None:
    for wait_s in (*waits_s, None):
        try:
            _go_on(url, partial, size_bytes, report)
        except _DroppedError as problem:
            if wait_s is None:
                raise ModelError(
                    f"The connection to {_host(url)} failed {len(waits_s) + 1} times "
                    f"({problem}); {_size(partial)} of {size_bytes} bytes are kept."
                ) from problem
            time.sleep(wait_s)
        else:
            return


def _go_on(url: str, partial: Path, size_bytes: int, report: Report | None) -> None:
    """Add to ``partial`` until it has ``size_bytes`` (or more: its hash will tell)."""
    done_bytes = _size(partial)
    if done_bytes >= size_bytes:
        return
    with contextlib.closing(_open(url, partial)) as response:
        done_bytes = _first_byte(response, url, partial, size_bytes)
        with partial.open("ab" if done_bytes else "wb") as file:
            for piece in _pieces(response):
                file.write(piece)
                done_bytes += len(piece)
                if report:
                    report(min(done_bytes, size_bytes), size_bytes)
                if done_bytes > size_bytes:
                    break
    if done_bytes < size_bytes:
        raise _DroppedError("it ended early")


def _open(url: str, partial: Path) -> _Answer:
    have_bytes = _size(partial)
    headers = {"Range": f"bytes={have_bytes}-"} if have_bytes else {}
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT_S, context=_tls())
    except HTTPError as problem:
        problem.close()
        if problem.code == RANGE_REFUSED:
            partial.unlink()
        elif problem.code not in BUSY:
            raise ModelError(f"{_host(url)} refuses ({problem}).") from problem
        raise _DroppedError(str(problem)) from problem
    except (OSError, http.client.HTTPException) as problem:
        raise _DroppedError(str(problem)) from problem


def _first_byte(response: _Answer, url: str, partial: Path, size_bytes: int) -> int:
    """Where in the file the answer begins: 0 from a server that ignores Range."""
    have_bytes = _size(partial)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        given = response.headers.get("Content-Range", "")
        if re.fullmatch(rf"bytes {have_bytes}-\d+/({size_bytes}|\*)", given):
            return have_bytes
        partial.unlink()
        raise _DroppedError(f"it sent {given!r} of another file")
    length = response.headers.get("Content-Length")
    if length is not None and length != str(size_bytes):
        raise ModelError(
            f"{_host(url)} sent something else: {length} bytes, expected {size_bytes}."
        )
    return 0


def _pieces(response: _Answer) -> Iterator[bytes]:
    try:
        while piece := response.read(PIECE_BYTES):
            yield piece
    except (OSError, http.client.HTTPException) as problem:
        raise _DroppedError(str(problem)) from problem


def _tls() -> ssl.SSLContext:
    """The system's certificates and, as some Pythons find none, those of certifi."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):  # installed by huggingface-hub's HTTP client
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _host(url: str) -> str:
    return urlsplit(url).hostname or "this machine"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
