"""Files that are there complete or not at all, and what identifies their content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
OPEN, PRIVATE = 0o666, 0o600
"""What a file may be used for before the umask has its say; by its owner alone."""


def cache_folder() -> Path:
    """Where downloads and conversions live; ``MLX_RSFT_CACHE`` moves it."""
    if chosen := os.environ.get("MLX_RSFT_CACHE"):
        return Path(chosen).expanduser()
    library = Path.home() / "Library" / "Caches"
    if library.is_dir():
        return library / "mlx-rsft"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlx-rsft"


def write_text(path: Path, text: str, *, mode: int = OPEN) -> None:
    """Replace ``path`` by ``text`` in one step, on disk before it is named.

    Args:
        path: The file.
        text: What is to be in it.
        mode: Who may do what with it, from its first byte on; the user's umask takes
            away what it takes from every new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(path)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody has; its beginning tells whose it is."""
    return path.with_name(f".{path.name.removeprefix('.')}.{secrets.token_hex(4)}")


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replace ``path`` by one indented, strictly standard JSON document."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """Yield a scratch folder that becomes ``path`` when the block ends well.

    An existing ``path`` is replaced only then; after an error nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(path)
    scratch.mkdir()
    try:
        yield scratch
        if path.exists():
            retired = _beside(path)
            retired.mkdir()
            path.replace(retired / "old")
            scratch.replace(path)
            shutil.rmtree(retired)
        else:
            scratch.replace(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Have a file, or a folder with all that is right inside it, on disk."""
    inside = [*path.iterdir(), path] if path.is_dir() else [path]
    for part in inside:
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def alone(lock: Path) -> Generator[None]:
    """Run the block in one process at a time; the system frees the lock at exit."""
    with _locked(lock, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def alone_or_refused(lock: Path) -> Generator[None]:
    """The same, but nobody waits.

    Raises:
        BlockingIOError: If another process is in its block.
    """
    with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextlib.contextmanager
def _locked(lock: Path, how: int) -> Generator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, how)
        yield


def tree_sha256(folder: Path) -> str:
    """One SHA-256 of all Python files right inside a folder."""
    hashes = [sha256(path) for path in sorted(folder.glob("*.py"))]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def stamp(path: Path) -> tuple[int, int, int]:
    """By what a file that was replaced or written to is told: its node, size and time."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
