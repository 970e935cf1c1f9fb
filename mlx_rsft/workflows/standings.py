"""What the arms of a comparison reach, and the record of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mlx_rsft import __version__, manifest, records
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.evaluation import differences, verdict
from mlx_rsft.evaluation.differences import Measurements
from mlx_rsft.records import finite
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import arms
from mlx_rsft.workflows.aftermath import Aftermath
from mlx_rsft.workflows.arms import Run, Stage
from mlx_rsft.workflows.scored import BASE, IN, SHIFTED, Rows, role

FEW_ROWS = 50


def record(
    stage: Stage,
    plan: Mapping[str, Any],
    runs: Sequence[Run],
    reached: Mapping[str, Measurements],
    on_valid: Rows,
    after: Aftermath,
) -> dict[str, Any]:
    """``comparison.json``: everything that a report draws."""

    def detectable(split: str, metric: str) -> float:
        return plan["splits"][split]["detectable"][metric]

    trained = {arm: reached[arm] for arm in stage.arms}
    contrasts = differences.differences(
        trained, stage.baseline, stage.gauges, detectable, stage.seeds[0]
    )
    diverged = {run.arm for run in runs if run.result.get("diverged")}
    shifted = {split for split in stage.tests if role(split) == SHIFTED}
    deciding = [c for c in contrasts if c.metric == stage.decisive]
    found = verdict.decide(deciding, shifted, diverged)
    made = {
        **_facts(stage, plan),
        "arms": [
            _base(stage, reached[BASE]),
            *(
                _arm(stage, arm, runs, reached[arm], after.weights[arm])
                for arm in stage.arms
            ),
        ],
        "differences": [contrast.as_record() for contrast in contrasts],
        "curves": _curves(stage, runs, on_valid),
        "histograms": after.histograms,
        "side_effects": after.side_effects,
        "examples": after.examples,
        "verdict": found.word,
        "reason": found.reason,
        "recommended": found.arm or None,
        "limits": limits(stage, plan),
        "method": plan["method"],
    }
    return {key: finite(value) for key, value in made.items()}


def _facts(stage: Stage, plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": __version__,
        "model": stage.resolved.config.model.source,
        "data": stage.resolved.config.data.source,
        "created": manifest.now(),
        "seeds": list(stage.seeds),
        "steps": stage.num_steps,
        "level": verdict.LEVEL,
        "splits": {
            name: {key: told[key] for key in ("rows", "tokens", "role")}
            for name, told in plan["splits"].items()
        },
        "baseline": stage.baseline,
    }


def _base(stage: Stage, reached: Measurements) -> dict[str, Any]:
    return {
        "name": BASE,
        "objective": None,
        "seeds": [],
        "learning_rate": None,
        "splits": _splits(stage, reached),
        "cost": None,
        "training": None,
        "diverged": False,
    }


def _arm(
    stage: Stage,
    arm: str,
    runs: Sequence[Run],
    reached: Measurements,
    weights: Mapping[str, float] | None,
) -> dict[str, Any]:
    mine = [run for run in runs if run.arm == arm]
    results = [run.result for run in mine]
    joules = [result["joules"] for result in results]
    return {
        "name": arm,
        "objective": str(stage.arms[arm]),
        "seeds": [run.seed for run in mine],
        "learning_rate": mine[0].learning_rate,
        "splits": _splits(stage, reached),
        "cost": {
            "seconds": fmean(result["training_seconds"] for result in results),
            "joules": None if None in joules else fmean(joules),
            "peak_bytes": max(result["peak_bytes"] for result in results),
            "tokens": round(fmean(result["tokens"] for result in results)),
        },
        "training": {**_training(stage, mine), "weight_by_class": weights},
        "diverged": any(result.get("diverged", False) for result in results),
    }


def _splits(stage: Stage, reached: Measurements) -> dict[str, Any]:
    return {
        split: {
            "rows": len(stage.splits.rows[split]),
            "tokens": supervised(stage, split),
            "metrics": {
                metric: differences.pooled(
                    seeds, stage.gauges[metric], stage.seeds[0]
                ).as_record()
                for metric, seeds in metrics.items()
            },
        }
        for split, metrics in reached.items()
    }


def supervised(stage: Stage, split: str) -> int:
    """Supervised tokens of a split."""
    return sum(row.num_supervised for row in stage.splits.rows[split])


def _training(stage: Stage, runs: Sequence[Run]) -> dict[str, Any]:
    """Means over the last epoch's steps, which show what the objective does in the end."""
    training = stage.resolved.config.training
    last = max(1, len(stage.splits.rows[TRAIN]) // training.batch_size)
    steps = [
        step
        for run in runs
        for step in list(records.read_lines(RunDir(run.path).steps))[-last:]
        if step["mean_p"] is not None and step["ess"] is not None
    ]
    return {
        "mean_p": fmean(step["mean_p"] for step in steps) if steps else None,
        "ess": fmean(step["ess"] for step in steps) if steps else None,
    }


def _curves(stage: Stage, runs: Sequence[Run], on_valid: Rows) -> list[dict[str, Any]]:
    """Each run's looks at ``valid``, from the bare model's at step 0 on."""
    begin = {
        metric: stage.gauges[metric].summarise(values).value
        for metric, values in on_valid.items()
    }
    points: list[dict[str, Any]] = []
    for run in runs:
        looks = [
            {"step": 0, "metric": metric, "value": value}
            for metric, value in begin.items()
        ] + arms.looks(run)
        points += [
            {
                "arm": run.arm,
                "seed": run.seed,
                "step": look["step"],
                "split": VALID,
                "metric": look["metric"],
                "value": look["value"],
            }
            for look in looks
        ]
    return points


def limits(stage: Stage, plan: Mapping[str, Any]) -> list[str]:
    """What this comparison cannot say, in sentences."""
    said: list[str] = []
    if len(stage.seeds) == 1:
        said.append(
            "One seed: p-values speak of these trainings, not of how another order of "
            "rows would have ended."
        )
    if len(stage.seeds) == 2:
        said.append("Two seeds say little of how another order would have ended.")
    if all(role(split) == IN for split in stage.tests):
        said.append("No split has shifted: nothing is said of changed conditions.")
    small = [s for s in stage.tests if len(stage.splits.rows[s]) < FEW_ROWS]
    if small:
        said.append(f"Fewer than {FEW_ROWS} rows: {', '.join(small)}.")
    if VALID not in stage.splits.rows:
        said.append("There is no valid split, so there are no learning curves.")
    if not plan["method"]["tuned"]:
        said.append("The learning rate is the same for all arms and was not tuned.")
    if plan.get("earlier"):
        said.append("The plan was changed after an earlier one had been written.")
    return said
