"""Objectives against each other: same start, same order, same rows, paired statistics.

OUT/  plan.json        what is compared, and what can be found, written before training
      runs/ARM-seedN/  one run each, as ``train`` writes it, and scores/SPLIT.json
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
from mlx_rsft.errors import ConfigError, DataError, RunError, nearest
from mlx_rsft.evaluation import differences
from mlx_rsft.models import adapters, fitted
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.workflows import (
    aftermath,
    arms,
    assemble,
    caching,
    sizing,
    standings,
    starting,
    stated,
)
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.assemble import Paths
from mlx_rsft.workflows.caching import Passes
from mlx_rsft.workflows.reporter import Reporter

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
    before = standings.base(stage, known, reporter)
    plan = stated.plan(stage, before, known, tuned=request.tune_rate)
    stated.announce(stage, plan, reporter)
    runs = arms.train_all(stage, tune=request.tune_rate, reporter=reporter)
    reached = standings.measure_all(stage, runs, reporter)
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
    resolved = _with_metrics(resolved)
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
    loaded = assemble.model(config, reporter)
    splits = assemble.splits({**training, **tests}, config, loaded, reporter)
    arms.check_tags(chosen, splits)
    split = SplitModel(loaded.model)
    seeds = range(config.seed, config.seed + request.seeds)
    starts, adapter_config = _starts(loaded, resolved, seeds)
    rows = splits.rows[TRAIN]
    held_most = max(chosen.values(), key=sizing.pulled)
    split.recomputed = sizing.recomputed(config, split, rows, held_most, reporter)
    steps = loop.num_steps(config.training, len(rows))
    every = request.every or max(1, steps // LOOKS)
    stage = Stage(
        out=request.out,
        resolved=resolved,
        arms=chosen,
        baseline=baseline,
        seeds=seeds,
        loaded=loaded,
        split=split,
        splits=splits,
        tests=tuple(tests),
        adapter_config=adapter_config,
        starts=starts,
        trunk=None,
        gauges=gauges,
        every=every,
    )
    return replace(stage, trunk=_trunk(stage, reporter))


def _checked(resolved: Resolved, request: Request) -> tuple[Mapping[str, Any], str]:
    """The arms, and which of them is the baseline."""
    configuration.require(resolved.config, "model.source", "data.source")
    assemble.check_length_settings(resolved)
    if any(name.startswith("objective.") for name in resolved.origins):
        raise ConfigError(
            "A comparison takes its objectives from --arm.",
            where="objective",
            hint="Leave [objective] out of the settings.",
        )
    if resolved.config.evaluation.general:
        raise ConfigError(
            "The bundled general prompts are no part of a comparison.",
            where="evaluation.general",
            hint="Leave it out; mlx-rsft eval scores a finished run on them.",
        )
    optimizers.check(resolved.config.optimizer, resolved.config.adapter)
    adapters.check(resolved.config.adapter)
    starting.refuse(resolved.config)
    chosen = arms.parse(request.arms)
    _check_folder(request.out)
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


def _check_folder(out: Path) -> None:
    """A folder with anything in it has to be a comparison that was begun."""
    if out.exists() and not out.is_dir():
        raise RunError(
            "The folder is a file.", where=str(out), hint="Pass another --out."
        )
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
    if inside - {standings.BASE} and "plan.json" not in inside:
        raise RunError(
            "The folder holds something that is no comparison.",
            where=str(out),
            hint="Pass another --out; nothing is overwritten.",
        )


def _with_metrics(resolved: Resolved) -> Resolved:
    if resolved.config.evaluation.metrics:
        return resolved
    values = {"evaluation.metrics": METRICS}
    return configuration.changed(resolved, values, configuration.DEFAULT)


def _tests(resolved: Resolved) -> Paths:
    paths = assemble.evaluation_paths(resolved.config)
    tests = {name: p for name, p in paths.items() if name not in (TRAIN, VALID)}
    if not tests:
        raise DataError(
            "There is no test split to compare on.",
            where=resolved.config.data.source,
            hint="mlx-rsft data split FILE --out DIR makes splits of one file.",
        )
    return tests


def _starts(
    loaded: LoadedModel, resolved: Resolved, seeds: Sequence[int]
) -> tuple[dict[int, Mapping[str, Any]], dict[str, Any]]:
    """What ``train`` with each seed would begin with, and the adapter's file."""
    starts: dict[int, Mapping[str, Any]] = {}
    adapter_config: dict[str, Any] = {}
    for seed in seeds:
        fitted.remove(loaded.model)
        config = replace(resolved.config, seed=seed)
        adapter_config = assemble.fresh_adapter(loaded, config)
        starts[seed] = loaded.model.trainable_parameters()
    return starts, adapter_config


def _trunk(stage: Stage, reporter: Reporter) -> Trunk | None:
    """One cache for all arms, seeds and evaluations."""
    rows = [row for split in stage.splits.rows.values() for row in split]
    training = stage.resolved.config.training
    runs = len(stage.arms) * len(stage.seeds)
    trained = runs * stage.num_steps * training.batch_size
    tested = sum(len(stage.splits.rows[name]) for name in stage.tests)
    looked = len(stage.splits.rows.get(VALID, ())) * (stage.num_steps // stage.every)
    scored = (runs + 1) * (tested + looked)
    passes = Passes(trained / len(rows), scored / len(rows))
    return caching.trunk(training, stage.loaded, stage.split, rows, passes, reporter)


def _write(out: Path, record: Mapping[str, Any]) -> None:
    files.write_json(out / "comparison.json", record)
    table = io.StringIO()
    rows = record["differences"]
    if rows:
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    files.write_text(out / "differences.csv", table.getvalue())
