"""A run once more, from its own files: the same bytes, or elsewhere the same figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files, manifest, records
from mlx_rsft.config import FLAG
from mlx_rsft.errors import CheckFailed, RsftError, RunError, raise_together
from mlx_rsft.machine import device
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import audit, finished, starting, train
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.reporter import Reporter

KIND = ("system", "architecture", "backend", "name", "blas", "cores")
"""What of a device decides the last digits of a result."""
NEAR = 0.02
"""Share by which the NLL of the last step may differ, where nothing was validated."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the run and of its repetition.

    Attributes:
        low: The least that counts as the same, as ``high`` is the most.
    """

    split: str
    metric: str
    was: float
    now: float
    low: float
    high: float

    @property
    def same(self) -> bool:
        return self.low <= self.now <= self.high


@dataclass(frozen=True, slots=True)
class Repeated:
    """How a repetition compares.

    Attributes:
        adapter: Where the new adapter is.
        same_bytes: Whether every file of it is the old one's.
        differs: What of the machine, the versions and the code is another.
        figures: Both runs' figures.
    """

    adapter: str
    same_bytes: bool
    differs: tuple[str, ...]
    figures: tuple[Figure, ...]

    @property
    def repeats(self) -> bool:
        """The same bytes; from another machine or other code, the same figures."""
        alike = bool(self.figures) and all(figure.same for figure in self.figures)
        return self.same_bytes or (bool(self.differs) and alike)

    def as_record(self) -> dict[str, Any]:
        """The comparison as ``--json`` prints it."""
        figures = [{**asdict(one), "same": one.same} for one in self.figures]
        return {"repeats": self.repeats, **asdict(self), "figures": figures}


def rerun(
    path: Path, out: Path, moved: Mapping[str, str], reporter: Reporter
) -> Repeated:
    """Train a finished run again and compare.

    Args:
        path: The run.
        out: A new folder for its repetition.
        moved: Where model and data are now, by setting, if not where they were.
        reporter: Told how far it is.

    Raises:
        CheckFailed: If the run is not as it was written.
        RunError: If it was not finished, or model or rows are others now.
    """
    _check_sound(path)
    card, run = finished.card(path), RunDir(path)
    if not card["finished"]:
        raise RunError(
            "The run is not finished, so there is nothing to repeat.",
            where=str(path),
            hint=f"Go on with it: mlx-rsft train --run-dir {path} --resume",
        )
    if card["extended"]:
        raise RunError(
            "The run was made longer on its way, which no single run repeats.",
            where=str(path),
        )
    held = configuration.resolve([configuration.from_file(run.config)])
    if moved:
        held = configuration.changed(held, moved, FLAG)
    job = train.prepare_replay(held, out, reporter)
    raise_together([*_others(card, job)])
    differs = tuple(_differs(card))
    train.train(job, out, reporter)
    again = RunDir(out)
    names = sorted(file.name for file in run.adapter.iterdir())
    same = names == sorted(file.name for file in again.adapter.iterdir()) and all(
        files.sha256(run.adapter / name) == files.sha256(again.adapter / name)
        for name in names
    )
    return Repeated(str(again.adapter), same, differs, tuple(_figures(run, again)))


def _check_sound(path: Path) -> None:
    found = audit.verify(path).findings
    if found:
        names = ", ".join(one.file for one in found[:5])
        raise CheckFailed(
            f"The run is not as it was written: {names}.",
            where=str(path),
            hint=f"See mlx-rsft audit verify {path}",
        )


def _others(card: Mapping[str, Any], job: Job) -> Iterator[RsftError]:
    """Files of model, data and the adapter begun from that are not those of the run."""
    was = {f"model {n}": d for n, d in card["model"]["sha256"].items()}
    now = {f"model {n}": d for n, d in job.loaded.weights()["sha256"].items()}
    begun = starting.record(job.resolved.config).get("init", {"sha256": {}})
    was |= {
        f"--init-adapter {n}": d
        for n, d in card["model"].get("init", {"sha256": {}})["sha256"].items()
    }
    now |= {f"--init-adapter {n}": d for n, d in begun["sha256"].items()}
    for split, told in card["data"]["splits"].items():
        hashes = told["sha256"]
        was |= {f"data {split} {Path(n).name}": d for n, d in hashes.items()}
    for split, hashes in job.splits.files.items():
        now |= {f"data {split} {Path(n).name}": d for n, d in hashes.items()}
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            yield RunError(
                f"{name} was {was.get(name, 'absent')[:12]} and is now "
                f"{now.get(name, 'absent')[:12]}.",
                hint="Put back what it was, or name where it is now with --model, --data.",
            )


def _differs(card: Mapping[str, Any]) -> Iterator[str]:
    """What is another than it was, and may change the last digits."""
    here = device().as_record()
    was = {key: card["device"].get(key) for key in KIND} | dict(card["versions"])
    now = {key: here.get(key) for key in KIND} | manifest.versions()
    was |= {"code": card.get("code"), **card.get("environment", {})}
    now |= {"code": manifest.code_sha256(), **manifest.environment()}
    was["ranks"], now["ranks"] = (card["identity"] or {}).get("ranks", 1), 1
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            yield f"{key} was {_short(was.get(key))} and is now {_short(now.get(key))}"


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _figures(run: RunDir, again: RunDir) -> Iterator[Figure]:
    was, now = _validated(run), _validated(again)
    for split, metric in sorted(set(was) & set(now)):
        old, new = was[split, metric], now[split, metric]
        if None not in (old["value"], old["low"], old["high"], new["value"]):
            known = (old["value"], new["value"], old["low"], old["high"])
            yield Figure(split, metric, *known)
    if not was:
        old, new = (_last_nll(one) for one in (run, again))
        yield Figure("train", "nll", old, new, old * (1 - NEAR), old * (1 + NEAR))


def _validated(run: RunDir) -> dict[tuple[str, str], dict[str, Any]]:
    """The last figure of each metric."""
    lines = records.read_lines(run.evals) if run.evals.exists() else ()
    return {(line["split"], line["metric"]): line for line in lines}


def _last_nll(run: RunDir) -> float:
    last = list(records.read_lines(run.steps))[-1]["nll"]
    return math.nan if last is None else float(last)
