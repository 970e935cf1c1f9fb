"""The folder of one run: who lies where, and that it is ours to write.

RUN/  config.toml  manifest.json  steps.jsonl  weights.jsonl  evals.jsonl  rows.jsonl
      rows.salt  audit.jsonl  checkpoints/  adapter/

A run has begun once it has a manifest; before that its folder counts as free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from mlx_rsft import files
from mlx_rsft.errors import RunError

LOCK, PENDING = ".lock", ".config.toml"
OURS = (LOCK, PENDING, ".manifest.json")
"""How names start that a run may leave which was killed before it began."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the files of a run."""

    path: Path

    @property
    def pending(self) -> Path:
        """The settings until the manifest is there; ``settle`` gives them their name."""
        return self.path / PENDING

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def steps(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def evals(self) -> Path:
        return self.path / "evals.jsonl"

    @property
    def weights(self) -> Path:
        """What each row weighed, step by step."""
        return self.path / "weights.jsonl"

    @property
    def rows(self) -> Path:
        """The rows that were trained on, as salted hashes."""
        return self.path / "rows.jsonl"

    @property
    def salt(self) -> Path:
        """The secret they are salted with; whoever has it can look for rows."""
        return self.path / "rows.salt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def settle(self) -> None:
        """Finish what a kill may have cut off right after the manifest was written."""
        with contextlib.suppress(FileNotFoundError):
            self.pending.replace(self.config)


def is_free(path: Path) -> bool:
    """Whether a folder holds nothing but what a kill leaves before a run has begun."""
    return all(one.name.startswith(OURS) for one in path.iterdir())


def clear(path: Path) -> None:
    """Remove all of a run but its lock; whoever does has to hold that.

    The manifest goes last, so that what a kill leaves of it is still a run.
    """
    last = RunDir(path).manifest
    for one in sorted(path.iterdir(), key=last.__eq__):
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        elif one.name != LOCK:
            one.unlink()


def check_there(run: RunDir) -> None:
    """Raise FileNotFoundError if a run was removed while it ran.

    What is written then would make a folder that is half a run.
    """
    if not run.manifest.exists():
        reason = os.strerror(errno.ENOENT)
        raise FileNotFoundError(errno.ENOENT, reason, str(run.manifest))


def check_free(path: Path) -> None:
    """Raise unless a new run can be written at ``path``; leaves nothing behind.

    Raises:
        RunError: If something is there already, or the place cannot be written.
    """
    if path.is_dir() and not is_free(path):
        raise RunError(
            "The run directory is not empty.",
            where=str(path),
            hint="Pass another --run-dir, or --resume if a run was cut off here; nothing "
            "is overwritten.",
        )
    if path.exists() and not path.is_dir():
        raise RunError("The run directory is a file.", where=str(path))
    made: list[Path] = []
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        probe = path / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise RunError(
            f"The run directory cannot be written ({problem.strerror}).",
            where=str(path),
            hint="Pass a --run-dir in a folder you own.",
        ) from None
    finally:
        for folder in reversed(made):
            folder.rmdir()


@contextlib.contextmanager
def held(path: Path) -> Generator[RunDir]:
    """Have the folder of a run for this process alone; it is made if need be.

    Raises:
        RunError: If another process has it, or it cannot be made.
    """
    try:
        with files.alone_or_refused(path / LOCK):
            yield RunDir(path)
    except BlockingIOError:
        raise RunError(
            "Another process trains in the run directory.",
            where=str(path),
            hint="Wait for it, or pass another --run-dir.",
        ) from None
