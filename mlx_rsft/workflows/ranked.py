"""A run of several ranks: what they hold against each other, and how they follow rank 0.

Rank 0 does all that a single process does: it writes, looks at splits and speaks. The
others take the same steps from where it says, on rows of their own, and write nothing.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import machine, manifest
from mlx_rsft import ranks as processes
from mlx_rsft.config import Resolved
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import Interrupted, RunError
from mlx_rsft.ranks import RankLost, Ranks
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint, loop
from mlx_rsft.training.loop import Position
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.job import Job

MOST_NAMED = 8


def gathered(**asked: object) -> Ranks:
    """The ranks that were launched, once all are known to be asked for the same.

    Raises:
        MachineError: If they do not find each other.
        RunError: If they are asked for different things.
    """
    ranks = processes.here()
    _agree(ranks, asked)
    return ranks


def agree(job: Job) -> None:
    """Hold what each rank has loaded against what rank 0 has.

    Raises:
        RunError: On every rank, with all that is not the same.
    """
    if job.ranks.size > 1:
        assert job.identity is not None
        found = {"code": manifest.code_sha256(), "objective": job.objective.as_table()}
        _agree(job.ranks, {**job.identity, **found})


def _agree(ranks: Ranks, facts: Mapping[str, object]) -> None:
    if ranks.size == 1:
        return
    own = json.dumps(dict(_flat("", facts))).encode()
    first, *others = [
        json.loads(ranks.told(own, by=rank)) for rank in range(ranks.size)
    ]
    told = [
        f"{key} is {_short(first.get(key))} on rank 0 and {_short(other.get(key))} on "
        f"rank {rank}"
        for rank, other in enumerate(others, 1)
        for key in sorted({*first, *other})
        if first.get(key) != other.get(key)
    ]
    if told:
        more = ["..."] * (len(told) > MOST_NAMED)
        raise RunError(
            f"The ranks do not hold the same: {'; '.join(told[:MOST_NAMED] + more)}.",
            hint="Give all of them the same command, files and packages.",
        )


def _flat(name: str, held: object) -> Iterator[tuple[str, object]]:
    """Every value in a tree of settings and hashes, by its full name."""
    if not isinstance(held, Mapping):
        yield name, held
        return
    for key, value in held.items():  # pyright: ignore
        yield from _flat(f"{name} {key}".lstrip(), value)


def _short(value: object) -> str:
    text = str(value)
    return "absent" if value is None else text[:12] if len(text) == 64 else text


def settings(ranks: Ranks, own: Resolved | None) -> Resolved:
    """The settings of a run that goes on: rank 0 alone has its folder, and tells them."""
    text = ranks.told(configuration.as_toml(own).encode() if own else b"")
    if own:
        return own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / RunDir(Path()).config.name
        path.write_bytes(text)
        return configuration.resolve([configuration.from_file(path)])


def send(ranks: Ranks, run: RunDir, start: Position) -> None:
    """Tell the others where to take the next steps from, with the state saved there."""
    if ranks.size == 1:
        return
    ranks.told(json.dumps({"step": start.step, "ease": start.ease}).encode())
    place = checkpoint.path(run.checkpoints, start.step)
    for name in checkpoint.FILES:
        ranks.told((place / name).read_bytes())


def end(ranks: Ranks) -> None:
    """Let the others go; by now one that is lost is missed no more."""
    with contextlib.suppress(RankLost):
        ranks.told(json.dumps(None).encode())


def follow(job: Job) -> None:
    """Take the steps of a run that rank 0 leads, until it says that all is done.

    Raises:
        Interrupted: If it was to stop at once.
        RankLost: If another rank is gone.
    """
    config = job.resolved.config
    stepper = assemble.stepper(
        job.split, job.objective, job.loaded, config, job.trunk, job.ranks
    )
    working_set_bytes = machine.device().working_set_bytes
    try:
        with machine.kept_awake(), machine.wired_memory(working_set_bytes):
            while (start := _heard(job.ranks, stepper)) is not None:
                loop.run(
                    stepper,
                    job.splits.rows[TRAIN],
                    config.training,
                    config.optimizer,
                    seed=config.seed,
                    record=_unrecorded,
                    start=start,
                )
    except KeyboardInterrupt:
        raise Interrupted("Stopped at once.") from None
    finally:
        if job.trunk:
            job.trunk.close()


def _unrecorded(step: object) -> None:
    del step


def _heard(ranks: Ranks, stepper: Stepper) -> Position | None:
    """Where rank 0 says to go on from, its state in place; None: nowhere."""
    word: dict[str, Any] | None = json.loads(ranks.told())
    if word is None:
        return None
    start = Position(**word)
    with tempfile.TemporaryDirectory() as folder:
        place = checkpoint.path(Path(folder), start.step)
        place.mkdir()
        for name in checkpoint.FILES:
            (place / name).write_bytes(ranks.told())
        checkpoint.read(place)
        checkpoint.restore(place, stepper)
    return start
