"""What a search is going to do and cost, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_rsft import __version__, manifest
from mlx_rsft.data.batching import window
from mlx_rsft.data.source import TRAIN
from mlx_rsft.evaluation import general
from mlx_rsft.objectives import Objective
from mlx_rsft.records import Metric
from mlx_rsft.workflows import arms, assemble, halving, scored, standings
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.halving import Contest
from mlx_rsft.workflows.reporter import Reporter


def plan(
    stage: Stage, contests: Sequence[Contest], eta: int, reporter: Reporter
) -> dict[str, Any]:
    """What the search will do and cost, with what the bare model reaches."""
    stage.begin(stage.seeds[0])
    runs = sum(rung.trials for contest in contests for rung in contest.rungs)
    steps = sum(rung.trials * rung.steps for c in contests for rung in c.rungs)
    bare, scoring = _bare(stage, reporter)
    step = seconds_per_step(stage, next(iter(stage.arms.values())))
    (seed,) = stage.seeds
    return {
        "version": __version__,
        "model": stage.resolved.config.model.source,
        "data": stage.resolved.config.data.source,
        "created": manifest.now(),
        "seed": seed,
        "steps": stage.num_steps,
        "eta": eta,
        "metrics": list(stage.gauges),
        "kl_budget": contests[0].kl_budget,
        "splits": {
            name: {
                "rows": len(stage.splits.rows[name]),
                "tokens": standings.supervised(stage, name),
                "role": scored.role(name),
            }
            for name in stage.tests
        },
        "cost": {
            "runs": runs,
            "steps": steps,
            "seconds_per_step": round(step, 4),
            "seconds": round(steps * step + runs * scoring, 1),
        },
        "base": {
            name: {metric: figure.as_record() for metric, figure in found.items()}
            for name, found in bare.items()
        },
        "plans": [
            {
                "tag": contest.tag or None,
                "trials": [str(trial) for trial in contest.trials],
                "rungs": [
                    {"trials": rung.trials, "steps": rung.steps}
                    for rung in contest.rungs
                ],
            }
            for contest in contests
        ],
    }


def _bare(
    stage: Stage, reporter: Reporter
) -> tuple[dict[str, dict[str, Metric]], float]:
    """What the untrained model reaches, and the seconds that scoring took.

    The frozen blocks are run beforehand, as they will have been for every trial.
    """
    prompts = halving.on_general(stage).splits.rows[general.NAME]
    validation = [row for name in stage.tests for row in stage.splits.rows[name]]
    arms.fill(stage, [*validation, *prompts], reporter)
    began = time.perf_counter()
    everything = {name: range(len(stage.splits.rows[name])) for name in stage.tests}
    found = halving.bare(stage, everything, reporter)
    return found, time.perf_counter() - began


def seconds_per_step(stage: Stage, objective: Objective) -> float:
    """A step of the first seed, taken twice; the model is put back afterwards."""
    config = stage.resolved.config
    stepper = assemble.stepper(
        stage.split, objective, stage.loaded, config, stage.trunk
    )
    rows = stage.splits.rows[TRAIN]
    seed = stage.seeds[0]
    chosen = [rows[n] for n in window(0, len(rows), config.training.batch_size, seed)]
    stage.loaded.model.train()
    stepper.references.refresh(0)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        stepper.step(chosen, 1.0)
        mx.eval(stage.loaded.model.trainable_parameters())
        seconds = time.perf_counter() - began
    stage.begin(seed)
    return seconds
