"""The folder of one run: who lies where, and that it is ours to write.

RUN/  config.toml  manifest.json  steps.jsonl  evals.jsonl  checkpoints/  adapter/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_rsft.errors import RunError


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the files of a run."""

    path: Path

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
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"


def check_free(path: Path) -> None:
    """Raise unless a new run can be written at ``path``; leaves nothing behind.

    Raises:
        RunError: If something is there already, or the place cannot be written.
    """
    if path.is_dir() and any(path.iterdir()):
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


def create(path: Path) -> RunDir:
    """Make the folder of a new run.

    Raises:
        RunError: As ``check_free``.
    """
    check_free(path)
    path.mkdir(parents=True, exist_ok=True)
    return RunDir(path)
