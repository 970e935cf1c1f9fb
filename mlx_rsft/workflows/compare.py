"""Objectives against each other: same start, same order, same rows, paired statistics.

OUT/  plan.json        what is compared, and what can be found, written before training
      runs/ARM-seedN/  one run each, as ``train`` writes it, and scores/SPLIT.json: what
                       metrics say of every row, and the answers that were written
      base/SPLIT.json  the bare model's scores
      aftermath.json   what training did beside its task
      comparison.json  everything that was found
      differences.csv  every arm against the baseline
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.data.splits import is_validation
from mlx_rsft.errors import ConfigError, DataError, nearest
from mlx_rsft.evaluation import differences
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.workflows import (
    aftermath,
    arms,
    assemble,
    scored,
    staging,
    standings,
    stated,
)
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.assemble import Paths
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.staging import Plot

PLAIN = "sft"
METRICS = ("exact_match", "nll")
LOOKS = 4
"""So many looks at ``valid`` in a run, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared, beside the settings of a run.

    Attributes:
        arms: Objectives as they are written on the command line.
        seeds: Trainings of each arm, from the setting ``seed`` on.
        baseline: The arm that the others are held against; empty: plain SFT if it is
            one of them, else the first.
        tune_rate: Whether each arm picks its learning rate on ``valid``.
        every: Steps between looks at ``valid``; 0: a quarter of the run.
    """

    arms: Sequence[str]
    out: Path
    seeds: int = 3
    baseline: str = ""
    tune_rate: bool = False
    every: int = 0


def compare(resolved: Resolved, request: Request, reporter: Reporter) -> dict[str, Any]:
    """Train every arm from every seed, then measure, then say what to do.

    Returns:
        What ``comparison.json`` holds.

    Raises:
        RsftError: Whatever is wrong with arms, settings, data, model or folder.
        Interrupted: If the user stopped it; the same command goes on.
    """
    stage = prepare(resolved, request, reporter)
    arms.recognise(stage, tune=request.tune_rate)
    stage.begin(stage.seeds[0])
    known = VALID if VALID in stage.splits.rows else TRAIN
    before = scored.base(stage, known, reporter)
    plan = stated.plan(stage, before, known, tuned=request.tune_rate)
    stated.announce(stage, plan, reporter)
    runs = arms.train_all(stage, tune=request.tune_rate, reporter=reporter)
    reached = scored.measure_all(stage, runs, reporter)
    on_valid = before if known == VALID else {}
    after = aftermath.look(stage, runs, reached, known, reporter)
    record = standings.record(stage, plan, runs, reached, on_valid, after)
    if stage.trunk:
        stage.trunk.close()
    _write(stage.out, record)
    return record


def prepare(resolved: Resolved, request: Request, reporter: Reporter) -> Stage:
    """Check everything a comparison needs, cheapest first, and load it once.

    Raises:
        RsftError: Whatever is wrong with arms, settings, data, model or folder.
    """
    chosen, baseline = _checked(resolved, request)
    resolved = with_metrics(resolved)
    config = resolved.config
    gauges = assemble.metrics(config)
    differences.check(gauges)
    training = assemble.training_paths(config)
    if request.tune_rate and VALID not in training:
        raise DataError(
            "A learning rate is tuned on the split valid, which is not there.",
            where=config.data.source,
            hint="Add valid.jsonl, or leave --tune-rate.",
        )
    tests = _tests(resolved)
    seeds = range(config.seed, config.seed + request.seeds)
    plot = Plot(request.out, chosen, seeds, training, tests, gauges, baseline)
    stage = staging.stage(resolved, plot, reporter)
    stage = replace(stage, every=request.every or max(1, stage.num_steps // LOOKS))
    return replace(stage, trunk=_trunk(stage, reporter))


def _checked(resolved: Resolved, request: Request) -> tuple[Mapping[str, Any], str]:
    """The arms, and which of them is the baseline."""
    staging.check_settings(resolved, "A comparison")
    if resolved.config.evaluation.general:
        raise ConfigError(
            "The bundled general prompts are no part of a comparison.",
            where="evaluation.general",
            hint="Leave it out; mlx-rsft eval scores a finished run on them.",
        )
    chosen = arms.parse(request.arms)
    staging.check_folder(
        request.out, mark="plan.json", aside={scored.BASE}, what="comparison"
    )
    if not request.baseline:
        return chosen, PLAIN if PLAIN in chosen else next(iter(chosen))
    (named,) = arms.parse([request.baseline])
    if named not in chosen:
        raise ConfigError(
            f"The baseline {named!r} is no arm.",
            where="--baseline",
            hint=nearest(named, chosen),
        )
    return chosen, named


def with_metrics(resolved: Resolved) -> Resolved:
    """The settings, with the metrics of a comparison where none are named."""
    if resolved.config.evaluation.metrics:
        return resolved
    values = {"evaluation.metrics": METRICS}
    return configuration.changed(resolved, values, configuration.DEFAULT)


def _tests(resolved: Resolved) -> Paths:
    paths = assemble.evaluation_paths(resolved.config)
    tests = {
        name: files
        for name, files in paths.items()
        if name != TRAIN and not is_validation(name)
    }
    if not tests:
        raise DataError(
            "There is no test split to compare on.",
            where=resolved.config.data.source,
            hint="mlx-rsft data split FILE --out DIR makes splits of one file.",
        )
    return tests


def _trunk(stage: Stage, reporter: Reporter) -> Trunk | None:
    """One cache for all arms, seeds and evaluations."""
    runs = len(stage.arms) * len(stage.seeds)
    trained = runs * stage.num_steps * stage.resolved.config.training.batch_size
    tested = sum(len(stage.splits.rows[name]) for name in stage.tests)
    looked = len(stage.splits.rows.get(VALID, ())) * (stage.num_steps // stage.every)
    return staging.trunk(stage, trained, (runs + 1) * (tested + looked), reporter)


def _write(out: Path, record: Mapping[str, Any]) -> None:
    files.write_json(out / "comparison.json", record)
    table = io.StringIO()
    rows = record["differences"]
    if rows:
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    files.write_text(out / "differences.csv", table.getvalue())
