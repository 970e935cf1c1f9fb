"""Experiments that are still to be done, each in a process of its own with one core.

One process keeps several cores busy only while it multiplies large matrices; two of one
core each are busy all the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tiers
from experiment import FOUND, Experiment

from mlx_rsft import lanes
from mlx_rsft.errors import Interrupted, RunError
from mlx_rsft.evaluation import METRICS
from mlx_rsft.workflows.reporter import Reporter

RUN = Path(__file__).with_name("run.py")
SHOWN = 12
"""Last lines of what a process said that failed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Experiments that share their runs, on one model.

    Attributes:
        weight: What it is likely to cost, beside others of its size.
    """

    names: Sequence[str]
    size: str
    label: str
    weight: float

    def words(self, out: Path) -> list[str]:
        """The command line that carries it out."""
        asked = [*self.names, "--tier", self.size, "--model", self.label]
        return [sys.executable, str(RUN), *asked, "--out", str(out)]

    def log(self, out: Path) -> Path:
        """What its process says."""
        return out / self.names[0] / f"{self.label}.log"


def pieces(
    made: Sequence[Experiment], size: str, label: str | None, out: Path
) -> list[Piece]:
    """What is still to be done, the longest first; on one model, if one is named."""
    found: list[Piece] = []
    for one in made:
        if one.runs_of in {other.name for other in made}:
            continue  # it goes along with the one whose runs it judges
        along = [one, *(other for other in made if other.runs_of == one.name)]
        for tier in tiers.of(size, one.name, label):
            names = [
                other.name
                for other in along
                if not (out / other.name / tier.label / FOUND).exists()
            ]
            if names:
                found.append(Piece(names, size, tier.label, _weight(one, size)))
    return sorted(found, key=lambda piece: -piece.weight)


def _weight(experiment: Experiment, size: str) -> float:
    """Steps and looks of all arms; twice that if a look is more than one pass."""
    named = [metric.partition(":")[0] for metric in experiment.metrics]
    passes = 2 if any(METRICS[name].needs for name in named) else 1
    return passes * len(experiment.arms) * (experiment.steps[size] + experiment.looks)


def carry_out(todo: Sequence[Piece], out: Path, reporter: Reporter) -> None:
    """Do all pieces, as many at once as there are cores.

    Raises:
        RunError: If one fails, once the others have ended; what is done is kept.
        Interrupted: If stopped, once those that run have ended.
    """

    def one(piece: Piece) -> Piece | None:
        began, log = time.monotonic(), piece.log(out)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
            ended = subprocess.run(
                piece.words(out), stdout=file, stderr=file, env=alone, check=False
            )
        told = f"{'+'.join(piece.names)} {piece.label}"
        reporter.note(f"{told}: {time.monotonic() - began:.0f} s")
        return piece if ended.returncode else None

    pool = ThreadPoolExecutor(lanes.count())
    try:
        failed = [piece for piece in pool.map(one, todo) if piece]
    except KeyboardInterrupt:  # the terminal has told the processes as well
        raise Interrupted("Stopped; the same command goes on.") from None
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        log = failed[0].log(out)
        said = log.read_text(encoding="utf-8").splitlines()[-SHOWN:]
        raise RunError(
            "An experiment has failed:\n" + "\n".join(said),
            where=str(log),
            hint="The same command goes on.",
        )
