"""One prepared run: its folder, its steps, its validation, its identity card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation, files, machine, manifest, records, rundir
from mlx_rsft.config import Resolved
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.errors import Interrupted, RunError
from mlx_rsft.manifest import Manifest
from mlx_rsft.models import adapters
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.records import StepRecord
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import loop
from mlx_rsft.training.loop import Outcome
from mlx_rsft.workflows import assemble, starting
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.choosing import Chosen
from mlx_rsft.workflows.keeping import Held, Keeper
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.spent import Clock, Spent


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to start; nothing is written yet.

    Attributes:
        every: Steps between looks at the ``valid`` split; 0: only at the end.
        identity: What checkpoints are known by; None: the run leaves none.
        held: The run it goes on with; None: it is a new one.
    """

    resolved: Resolved
    objective: Objective
    splits: Splits
    loaded: LoadedModel
    split: SplitModel
    adapter_config: Mapping[str, Any]
    trunk: Trunk | None = None
    probe: Chosen | None = None
    every: int = 0
    identity: Mapping[str, Any] | None = None
    held: Held | None = None

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


def carry_out(
    job: Job, run_dir: Path, reporter: Reporter
) -> tuple[dict[str, Any], Outcome]:
    """Run a prepared job and write everything a run leaves behind.

    Returns:
        The result as it stands in the manifest, and how the run ended.
    """
    working_set_bytes = machine.device().working_set_bytes
    with (
        rundir.held(run_dir) as run,
        machine.kept_awake(),
        machine.wired_memory(working_set_bytes),
    ):
        card = _begun(job, run)
        clock = Clock(job.held.spent if job.held else Spent())
        looks = _Looks(job, run, clock, reporter)
        outcome = _steps(job, run, looks, reporter)
        steps_alone = clock.spent()
        adapters.save(job.loaded.model, dict(job.adapter_config), run.adapter)
        if not outcome.interrupted:
            looks.look(outcome.steps)
        result = _result(run, outcome) | {
            "seconds": clock.spent().seconds,
            "training_seconds": steps_alone.training,
            "joules": steps_alone.joules,
        }
        if job.trunk:
            result["trunk_cache"] = job.trunk.stats.as_record()
        card.ended(result, interrupted=outcome.interrupted).write(run.manifest)
    return result, outcome


def _begun(job: Job, run: RunDir) -> Manifest:
    """Write what a run begins with, or put it back to where it goes on."""
    card = _manifest(job)
    if job.held:
        job.held.reopen()
        card = replace(card, **job.held.told())
        card.write(run.manifest)
        return card
    rundir.check_free(run.path)
    files.write_text(run.pending, configuration.as_toml(job.resolved))
    card.write(run.manifest)
    run.settle()
    return card


def _manifest(job: Job) -> Manifest:
    config = job.resolved.config
    return Manifest(
        identity=job.identity,
        command=manifest.command_line(),
        versions=manifest.versions(),
        device=machine.device().as_record(),
        model=job.loaded.as_record() | starting.record(config),
        data=job.splits.as_record(config.data.source),
        objective=job.objective.as_table(),
        config_sha256=manifest.text_sha256(configuration.as_toml(job.resolved)),
        seed=config.seed,
        started=manifest.now(),
        probe=job.probe.as_record() if job.probe else None,
        notes=job.loaded.notes,
    )


class _Looks:
    """Looks at the ``valid`` split, which are no part of what the steps take."""

    def __init__(self, job: Job, run: RunDir, clock: Clock, reporter: Reporter) -> None:
        self._job, self._run, self._reporter = job, run, reporter
        self.clock = clock

    def between(self, step: int) -> None:
        """Look if it is time to, leaving the model as a training model again."""
        every, last = self._job.every, self._job.num_steps
        if every and step % every == 0 and step < last:
            self.look(step)
            self._job.loaded.model.train()

    def look(self, step: int) -> None:
        """Measure the split and write down its metrics."""
        with self.clock.aside():
            self._look(step)

    def _look(self, step: int) -> None:
        job = self._job
        rows = job.splits.rows.get(VALID)
        if not rows:
            return
        job.loaded.model.eval()
        config = job.resolved.config.evaluation
        with self._reporter.task("validate", len(rows)) as advance:
            measured = evaluation.measure(
                job.split,
                job.loaded.tokenizer,
                rows,
                assemble.metrics(job.resolved.config),
                config.max_tokens,
                advance,
                job.trunk,
            )
        for name, metric in measured.metrics.items():
            entry = {"step": step, "split": VALID, "metric": name, **metric.as_record()}
            records.append(self._run.evals, entry)


def _steps(job: Job, run: RunDir, looks: _Looks, reporter: Reporter) -> Outcome:
    config = job.resolved.config
    stepper = assemble.stepper(job.split, job.objective, job.loaded, config, job.trunk)
    keeper = Keeper(run, stepper, config.training, job.identity, looks.clock)
    start = keeper.begin(job.held)
    with reporter.task(f"train {job.objective}", job.num_steps) as advance:
        if start.step:
            advance(start.step)

        def record(step: StepRecord) -> None:
            records.append(run.steps, step.as_record())
            advance(1, f"loss {step.loss:.3f}  NLL {step.nll:.3f}  p {step.mean_p:.2f}")
            looks.between(step.step)
            keeper.after(step.step)

        outcome = loop.run(
            stepper,
            job.splits.rows[TRAIN],
            config.training,
            config.optimizer,
            seed=config.seed,
            record=record,
            start=start,
        )
    keeper.save(outcome.steps)
    return outcome


def _result(run: RunDir, outcome: Outcome) -> dict[str, Any]:
    done = list(records.read_lines(run.steps)) if run.steps.exists() else []
    kept = ("loss", "nll", "mean_p", "ess")
    return {
        "steps": outcome.steps,
        "peak_bytes": max((step["peak_bytes"] for step in done), default=0),
        "tokens": sum(step["tokens"] for step in done),
        **({"diverged": True} if outcome.diverged else {}),
        **{key: step[key] for step in done[-1:] for key in kept},
    }


def raise_unless_done(outcome: Outcome, planned: int, run_dir: Path) -> None:
    """Say how a run ended that did not end well.

    Raises:
        Interrupted: If the user stopped it; the adapter so far is saved.
        RunError: If the loss stayed non-finite; what was done is saved.
    """
    if outcome.interrupted:
        raise Interrupted(
            f"Stopped after {outcome.steps} of {planned} steps; the adapter so far is "
            f"saved in {RunDir(run_dir).adapter}.",
            hint="It can be evaluated and used; to go on: mlx-rsft train --run-dir "
            f"{run_dir} --resume",
        )
    if outcome.diverged:
        raise RunError(
            f"Loss or gradient was not finite {loop.MOST_SKIPPED} steps in a row; "
            f"stopped after {outcome.steps} of {planned} steps.",
            where=str(run_dir),
            hint="Lower --learning-rate, and look at steps.jsonl for where it began.",
        )
