"""What befalls a run from outside, in words: memory, disks, folders, the display.

Each says what stands, how to go on, and what would fit, in numbers.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_rsft import ledger
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import MachineError, RsftError, RunError
from mlx_rsft.memory import GIB
from mlx_rsft.records import held_lines
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.workflows import fitting, sealing, sizing
from mlx_rsft.workflows.fitting import Advice
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.portions import RowSize

SHORTAGES = (
    "bad_alloc",
    "insufficient memory",
    "maximum allowed buffer size",
    "out of memory",
    "outofmemory",
    "resource limit",
    "unable to allocate",
)
"""Words of mlx and its backends for memory that ran out."""
CUT_SHORT = ("impactinginteractivity", "callbackerrortimeout", "gpu timeout")
"""Words of macOS for a command that kept the display waiting."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AMPLE = 1 / 2
"""A run that held no more than this share of memory hardly died for want of it."""
SPARE = 3 / 4
"""What a run may hold that ought to have fitted, as a share of what it would."""


def is_shortage(problem: BaseException) -> bool:
    """Whether an error means that memory ran out; mlx says so by a RuntimeError."""
    return isinstance(problem, MemoryError) or _says(problem, SHORTAGES)


def _says(problem: BaseException, words: tuple[str, ...]) -> bool:
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(word in said for word in words)


@contextlib.contextmanager
def named(job: Job, run_dir: Path, again: str) -> Generator[None]:
    """Turn what befalls the run in the block into an error that says what to do.

    Args:
        job: The run.
        run_dir: Its folder.
        again: How to go on with it, as the end of a sentence.

    Raises:
        MachineError: If memory ran out, or the display's watchdog stopped the GPU.
        RunError: If its folder cannot be written, or is gone.
    """
    try:
        yield
    except OSError as problem:
        raise _unwritten(problem, run_dir, again) from problem
    except RunError as problem:  # a checkpoint says which it was
        if isinstance(problem.__cause__, OSError):
            problem.hint = _remedy(problem.__cause__, run_dir, again)
        raise
    except (MemoryError, RuntimeError) as problem:
        if is_shortage(problem):
            # Its frames hold the arrays that there was no room for.
            traceback.clear_frames(problem.__traceback__)
            mx.clear_cache()
            raise _short(job, run_dir, again, problem) from None
        if _says(problem, CUT_SHORT):
            raise _stopped_by_display(problem, run_dir, again) from problem
        raise


def of_machine(problem: Exception) -> MachineError | None:
    """What befell any command, or None if it was not the machine's doing."""
    reason = str(problem).strip() or type(problem).__name__
    if is_shortage(problem):
        return MachineError(
            f"Memory ran out ({reason[:200]}).",
            hint="Close other programs; mlx-rsft plan says what a run holds.",
        )
    if isinstance(problem, OSError) and problem.errno in (*FULL, errno.EROFS):
        return MachineError(
            f"A file cannot be written ({problem.strerror}).",
            where=str(problem.filename or ""),
            hint="Make room, or name a place that can be written.",
        )
    return None


def _unwritten(problem: OSError, run_dir: Path, again: str) -> RunError:
    return RunError(
        f"The run cannot be written ({problem.strerror or problem}).",
        where=str(problem.filename or run_dir),
        hint=_remedy(problem, run_dir, again),
    )


def _remedy(problem: OSError, run_dir: Path, again: str) -> str:
    """What to do about a disk, and how to go on."""
    if not RunDir(run_dir).manifest.exists():
        return (
            "The run's folder was removed while it ran, and its checkpoints with it. "
            "Put it back, or begin the run anew."
        )
    sizes = [_bytes(place) for place in checkpoint.found(RunDir(run_dir).checkpoints)]
    needed, free = max(sizes, default=0), shutil.disk_usage(run_dir).free
    if problem.errno in FULL or (problem.errno == errno.EIO and free < needed):
        do = f"{free / 1e6:,.0f} MB are free there"
        if needed:
            do += (
                f"; a checkpoint takes {needed / 1e6:,.1f} MB, and {len(sizes)} are kept "
                "(--keep 1 keeps fewer)"
            )
        do += ". Make room."
    elif problem.errno == errno.EROFS:
        do = "The disk can only be read: mount it to be written, or copy the folder."
    elif problem.errno in (errno.EACCES, errno.EPERM):
        do = "Give back the right to write there."
    else:
        do = "Make room or give the folder back."
    return f"{do} {_standing(run_dir, again)}"


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _standing(run_dir: Path, again: str) -> str:
    """What of the run stands, and how to go on."""
    there = checkpoint.found(RunDir(run_dir).checkpoints)
    if not there:
        return f"To go on: {again}"
    return (
        f"The checkpoint of step {checkpoint.step_of(there[-1])} stands; to go on from "
        f"it: {again}"
    )


def after_death(job: Job, run_dir: Path) -> str:
    """What to say of a run whose process ended without a word; empty if it had one.

    Not every shortage is an error that can be told of: mlx's CPU backend, OpenBLAS and
    the system end a process themselves.
    """
    events = ledger.read(run_dir).events
    if not events or events[-1]["event"] in sealing.AT_REST:
        return ""
    said = (
        "the process before this one ended in the midst of it: it was killed, or memory "
        "ran out."
    )
    held = max((s["peak_bytes"] for s in held_lines(RunDir(run_dir).steps)), default=0)
    has = sizing.here().available
    if 0 < held <= AMPLE * has:
        return (
            f"{said} Its steps held {held / GIB:.1f} GiB at most; this machine has "
            f"{has / GIB:.1f} GiB for them."
        )
    found = _planned(job)
    return f"{said} {found.said}" + ("" if found.fits else f" {found.change}")


def _short(job: Job, run_dir: Path, again: str, problem: BaseException) -> MachineError:
    done = len(held_lines(RunDir(run_dir).steps))
    reason = str(problem).strip() or type(problem).__name__
    try:
        found = _planned(job)
    except (RsftError, MemoryError, RuntimeError):
        change = "mlx-rsft plan, with the same flags, says what would fit."
        found = Planned("", fits=False, change=change)
    said = f"Memory ran out after {done} of {job.num_steps} steps ({reason[:200]})."
    return MachineError(
        f"{said} {found.said}".strip(),
        where=str(run_dir),
        hint=f"{_standing(run_dir, again)}. {found.change}".strip(),
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan says of a run, and which change of least harm would take less."""

    said: str
    fits: bool
    change: str


def _planned(job: Job) -> Planned:
    rows = job.splits.rows[TRAIN]
    sizes = [RowSize(len(row.tokens), row.num_supervised) for row in rows]
    where = sizing.here()
    found = sizing.estimate(job.resolved.config, sizes, job.objective, where)
    held = found.items.total
    fits = held <= where.available
    said = (
        f"By the plan it holds {held / GIB:.1f} GiB at its peak; this machine has "
        f"{where.available / GIB:.1f} GiB for it"
        f"{', if nothing else takes them: close other programs.' if fits else '.'}"
    )
    advice, _ = fitting.climb(
        job.resolved,
        found,
        max(row.tokens for row in sizes),
        int(SPARE * held) if fits else where.available,
        lambda other: sizing.estimate(other, sizes, job.objective, where),
    )
    return Planned(said, fits, _change(advice, fits=fits))


def _change(advice: Sequence[Advice], *, fits: bool) -> str:
    """The changes as flags, if they help."""
    if not fits and not (advice and advice[-1].fits):
        return "No setting makes it fit: take a smaller model or more memory."
    if not advice:
        return ""
    changes: dict[str, object] = {}
    for step in advice:
        changes |= step.changes
    flags = " ".join(f"--set {key}={value}" for key, value in changes.items())
    harm = any(step.changes_results for step in advice)
    return (
        f"A run begun anew with {flags} holds {advice[-1].peak_bytes / GIB:.1f} GiB"
        f"{', and comes to other results' if harm else ''}."
    )


def _stopped_by_display(
    problem: BaseException, run_dir: Path, again: str
) -> MachineError:
    return MachineError(
        f"macOS stopped the GPU because the display had to wait ({problem}).",
        where=str(run_dir),
        hint="Let the display sleep while it trains (pmset displaysleepnow), or begin "
        "anew with half the --token-budget, which makes its commands shorter. "
        f"{_standing(run_dir, again)}",
    )
