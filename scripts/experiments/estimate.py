"""How long an experiment would take here, from a measured step, look and score."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import experiment
import reader
import tiers
from experiment import PLAIN, Experiment
from tiers import READER, Tier

from mlx_rsft.config import Resolved
from mlx_rsft.workflows import budget, compare, pace
from mlx_rsft.workflows.budget import Size
from mlx_rsft.workflows.compare import Request
from mlx_rsft.workflows.reporter import Silent

TUNED = 2
"""More runs of each arm than seeds: the first seed is trained at three rates."""


def lines(made: Experiment, size: str, out: Path) -> list[str]:
    """Seconds of the experiment on every model of a size; nothing is kept of it."""
    if made.runs_of:
        return [f"{made.name}: judges the runs of {made.runs_of}"]
    return [
        f"{made.name} {tier.label}: {_told(made, size, tier, out)}"
        for tier in tiers.of(size, made.name)
    ]


def _told(made: Experiment, size: str, tier: Tier, out: Path) -> str:
    model = str(reader.made(out)) if tier.model == READER else tier.model
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        experiment.write(made.task(tier.world, tier.train, tier.tests), data)
        resolved = experiment.settings(made, size, tier, model, data)
        return told(resolved, made.arms, tier.seeds, made.looks)


def told(resolved: Resolved, arms: Sequence[str], seeds: int, looks: int) -> str:
    """How long a comparison with tuned rates and plain SFT at a low one would take."""
    with tempfile.TemporaryDirectory() as scratch:
        loading = time.monotonic()
        request = Request(arms, Path(scratch) / "out", 1)
        stage = compare.prepare(resolved, request, Silent())
        found = pace.measured(stage, time.monotonic() - loading, Silent())
        work = replace(pace.work(stage), looks=looks)
        if stage.trunk:
            stage.trunk.close()
    steps = stage.num_steps
    tuned = budget.seconds(Size(tuple(stage.arms), seeds + TUNED, steps), work, found)
    low = budget.seconds(Size((PLAIN,), seeds, steps), work, found)
    step = ", ".join(f"{arm} {seconds:.2f}" for arm, seconds in found.step.items())
    return (
        f"{(tuned + low) / 60:.1f} min ({len(stage.arms)} arms, {seeds} seeds, {steps} "
        f"steps; seconds per step: {step}; per row scored: {found.score:.3f})"
    )
