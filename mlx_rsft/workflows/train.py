"""One fine-tuning run: everything is checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation, machine, manifest, records, rundir
from mlx_rsft.config import Resolved
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.errors import ConfigError, Interrupted, RunError, nearest
from mlx_rsft.manifest import Manifest
from mlx_rsft.models import adapters
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.records import StepRecord
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import Config
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.loop import Outcome
from mlx_rsft.workflows import assemble, caching
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.caching import Passes
from mlx_rsft.workflows.choosing import Chosen, choose_objective
from mlx_rsft.workflows.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to start; nothing is written yet."""

    resolved: Resolved
    objective: Objective
    splits: Splits
    loaded: LoadedModel
    split: SplitModel
    adapter_config: Mapping[str, Any]
    trunk: Trunk | None = None
    probe: Chosen | None = None

    @property
    def num_steps(self) -> int:
        config = self.resolved.config
        return loop.num_steps(config.training, len(self.splits.rows[TRAIN]))

    def summary(self) -> dict[str, Any]:
        """What the run will do, in numbers."""
        rows = self.splits.rows[TRAIN]
        return {
            "model": self.loaded.source,
            "objective": str(self.objective),
            "rows": len(rows),
            "tokens": sum(len(row.tokens) for row in rows),
            "supervised_tokens": sum(row.num_supervised for row in rows),
            "longest": max(len(row.tokens) for row in rows),
            "steps": self.num_steps,
            "batch_size": self.resolved.config.training.batch_size,
        }


def prepare(resolved: Resolved, run_dir: Path, reporter: Reporter) -> Job:
    """Check everything a run needs, cheapest first, and load it.

    Raises:
        RsftError: Whatever is wrong with settings, data, run directory or model.
    """
    configuration.require(resolved.config, "model.source", "data.source")
    assemble.check_length_settings(resolved)
    config = resolved.config
    optimizers.check(config.optimizer, config.adapter)
    adapters.check(config.adapter)
    auto = assemble.is_auto(config)
    table = {"name": "sft"} if auto else config.objective
    named, objective = assemble.with_objective(resolved, table)
    rundir.check_free(run_dir)
    paths = assemble.training_paths(config)
    loaded = assemble.model(config, reporter)
    splits = assemble.splits(paths, config, loaded, reporter)
    rows = splits.rows[TRAIN]
    split = SplitModel(loaded.model)
    found = choose_objective(split, rows, config.seed, reporter) if auto else None
    if found:
        table = {"name": found.choice.objective}
        named, objective = assemble.with_objective(resolved, table)
    _check_tags(objective, rows)
    adapter_config = assemble.fresh_adapter(loaded, config)
    trunk = _trunk(config, loaded, split, rows, reporter)
    return Job(named, objective, splits, loaded, split, adapter_config, trunk, found)


def _trunk(
    config: Config,
    loaded: LoadedModel,
    split: SplitModel,
    rows: Sequence[Example],
    reporter: Reporter,
) -> Trunk | None:
    steps = loop.num_steps(config.training, len(rows))
    passes = Passes(training=steps * config.training.batch_size / len(rows))
    return caching.trunk(config.training, loaded, split, rows, passes, reporter)


def _check_tags(objective: Objective, rows: Sequence[Example]) -> None:
    present = {tag for row in rows for tag in row.tags}
    for tag in objective.composition.where:
        if tag not in present:
            raise ConfigError(
                f"No training row has the tag {tag!r}.",
                where="objective.where",
                hint=nearest(tag, present) if present else "No row has any tag.",
            )


def train(job: Job, run_dir: Path, reporter: Reporter) -> dict[str, Any]:
    """Run a prepared job and write everything a run leaves behind.

    Returns:
        The result as it stands in the manifest, and where things are.

    Raises:
        Interrupted: If the user stopped it; the adapter so far is saved.
        RunError: If the loss stayed non-finite; what was done is saved.
    """
    run = rundir.create(run_dir)
    card = _manifest(job)
    settings_text = configuration.as_toml(job.resolved)
    run.config.write_text(settings_text, encoding="utf-8")
    card.write(run.manifest)
    began = time.perf_counter()
    device = machine.device()
    with machine.kept_awake(), machine.wired_memory(device.working_set_bytes):
        outcome = _steps(job, run, reporter)
        adapters.save(job.loaded.model, dict(job.adapter_config), run.adapter)
        if not outcome.interrupted:
            _validate(job, run, outcome.steps, reporter)
    result = _result(run, outcome, time.perf_counter() - began)
    if job.trunk:
        result["trunk_cache"] = job.trunk.stats.as_record()
        job.trunk.close()
    card.ended(result, interrupted=outcome.interrupted).write(run.manifest)
    _raise_unless_done(outcome, job.num_steps, run)
    return {"run_dir": str(run.path), "adapter": str(run.adapter), **result}


def _manifest(job: Job) -> Manifest:
    config = job.resolved.config
    return Manifest(
        command=manifest.command_line(),
        versions=manifest.versions(),
        device=machine.device().as_record(),
        model=job.loaded.as_record(),
        data=job.splits.as_record(config.data.source),
        objective=job.objective.as_table(),
        config_sha256=manifest.text_sha256(configuration.as_toml(job.resolved)),
        seed=config.seed,
        started=manifest.now(),
        probe=job.probe.as_record() if job.probe else None,
        notes=job.loaded.notes,
    )


def _steps(job: Job, run: RunDir, reporter: Reporter) -> Outcome:
    config = job.resolved.config
    with reporter.task(f"train {job.objective}", job.num_steps) as advance:

        def record(step: StepRecord) -> None:
            records.append(run.steps, step.as_record())
            advance(1, f"loss {step.loss:.3f}  NLL {step.nll:.3f}  p {step.mean_p:.2f}")

        return loop.run(
            assemble.stepper(job.split, job.objective, job.loaded, config, job.trunk),
            job.splits.rows[TRAIN],
            config.training,
            config.optimizer,
            seed=config.seed,
            record=record,
        )


def _validate(job: Job, run: RunDir, step: int, reporter: Reporter) -> None:
    rows = job.splits.rows.get(VALID)
    if not rows:
        return
    job.loaded.model.eval()
    config = job.resolved.config.evaluation
    with reporter.task("validate", len(rows)) as advance:
        measured = evaluation.measure(
            job.split,
            job.loaded.tokenizer,
            rows,
            evaluation.choose(config.metrics),
            config.max_tokens,
            advance,
        )
    for name, metric in measured.metrics.items():
        entry = {"step": step, "split": VALID, "metric": name, **metric.as_record()}
        records.append(run.evals, entry)


def _result(run: RunDir, outcome: Outcome, seconds: float) -> dict[str, Any]:
    last = list(records.read_lines(run.steps))[-1:] if run.steps.exists() else []
    kept = ("loss", "nll", "mean_p", "ess")
    return {
        "steps": outcome.steps,
        "seconds": round(seconds, 2),
        **{key: step[key] for step in last for key in kept},
    }


def _raise_unless_done(outcome: Outcome, planned: int, run: RunDir) -> None:
    if outcome.interrupted:
        raise Interrupted(
            f"Stopped after {outcome.steps} of {planned} steps; the adapter so far is "
            f"saved in {run.adapter}.",
            hint="It can be evaluated and used; a new run needs another --run-dir.",
        )
    if outcome.diverged:
        raise RunError(
            f"Loss or gradient was not finite {loop.MOST_SKIPPED} steps in a row; "
            f"stopped after {outcome.steps} of {planned} steps.",
            where=str(run.path),
            hint="Lower --learning-rate, and look at steps.jsonl for where it began.",
        )
