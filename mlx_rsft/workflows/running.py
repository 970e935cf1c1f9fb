"""One prepared run: its folder, its steps, its validation, its identity card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files, ledger, machine, manifest, records, rundir
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import Interrupted, RunError
from mlx_rsft.manifest import Manifest
from mlx_rsft.models import adapters
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import loop
from mlx_rsft.training.loop import Outcome
from mlx_rsft.workflows import (
    audit,
    effects,
    lineage,
    proving,
    ranked,
    sealing,
    starting,
    stepping,
)
from mlx_rsft.workflows.held import Held
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.resting import Rests
from mlx_rsft.workflows.spent import Clock, Spent
from mlx_rsft.workflows.stepping import Looks


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
        machine.kept_awake() as awake,
        machine.wired_memory(working_set_bytes),
    ):
        card = _begun(job, run)
        clock = Clock(job.held.spent if job.held else Spent())
        looks = Looks(job, run, clock, reporter)
        floor = job.resolved.config.training.battery_floor
        rests = Rests(floor, clock, awake, reporter)
        outcome = stepping.train(job, run, looks, rests, reporter)
        steps_alone = clock.spent()
        rundir.check_there(run)
        adapters.save(job.loaded.model, dict(job.adapter_config), run.adapter)
        if not outcome.interrupted:
            looks.finish(outcome)
            if looks.why_stop:
                reporter.note(f"stopped at step {outcome.steps}: {looks.why_stop}.")
            card = replace(card, effects=_beside(job, reporter))
        result = _result(run, outcome) | {
            "seconds": clock.spent().seconds,
            "training_seconds": steps_alone.training,
            "joules": steps_alone.joules,
            **({"stopped": looks.why_stop} if looks.why_stop else {}),
        }
        if job.trunk:
            result["trunk_cache"] = job.trunk.stats.as_record()
        card = card.ended(result, interrupted=outcome.interrupted)
        event = sealing.STOPPED if outcome.interrupted else sealing.ENDED
        sealing.write_card(run, asdict(card), event, steps=outcome.steps)
    ranked.end(job.ranks)
    return result, outcome


def _begun(job: Job, run: RunDir) -> Manifest:
    """Write what a run begins with, or put it back to where it goes on."""
    if job.held:
        return _gone_on(job, job.held)
    rundir.check_free(run.path)
    rows = proving.salted(job.splits.rows[TRAIN])
    lineage_of = lineage.ancestors(job.resolved.config)
    card = replace(_manifest(job), rows=rows.as_record(), lineage=lineage_of)
    files.write_text(run.pending, configuration.as_toml(job.resolved))
    files.write_text(run.manifest, card.text())
    run.settle()
    rows.write(run)
    sealing.begin(run)
    return card


def _gone_on(job: Job, held: Held) -> Manifest:
    run = held.run
    has_log = bool(ledger.read(run.path).events)
    if has_log or held.facts:
        audit.check_untouched(run.path)
    held.reopen()
    sealing.clear(run)
    card = replace(_manifest(job), **held.told())
    if not has_log:  # a kill came before the rows were written
        rows = proving.salted(job.splits.rows[TRAIN])
        rows.write(run)
        card = replace(card, rows=rows.as_record())
    sealing.write_card(run, asdict(card), sealing.RESUMED, step=held.step)
    return card


def _beside(job: Job, reporter: Reporter) -> Sequence[Mapping[str, Any]] | None:
    """What the run did beside its task, if that was asked for."""
    config = job.resolved.config
    if config.evaluation.side_effects != effects.ON:
        return None
    job.loaded.model.eval()
    rows = effects.task_rows(job.splits, config.seed)
    with reporter.task("look for side effects", 1) as advance:
        tokenizer, most = job.loaded.tokenizer, config.evaluation.max_tokens
        asked = effects.Asked(job.split, tokenizer, rows, most, job.trunk)
        found = asked.beside_bare()
        advance(1)
    return found


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
        code=manifest.code_sha256(),
        packages=manifest.packages(),
        environment=manifest.environment(),
    )


def _result(run: RunDir, outcome: Outcome) -> dict[str, Any]:
    done = list(records.read_lines(run.steps)) if run.steps.exists() else []
    kept = ("loss", "nll", "mean_p", "ess")
    return {
        "steps": outcome.steps,
        "peak_bytes": max((step["peak_bytes"] for step in done), default=0),
        "tokens": sum(step["tokens"] for step in done),
        **({"diverged": True} if outcome.diverged else {}),
        **({} if outcome.kept is None else {"adapter_of_step": outcome.kept}),
        **{key: step[key] for step in done[-1:] for key in kept},
    }


def raise_unless_done(outcome: Outcome, planned: int, run_dir: Path) -> None:
    """Say how a run ended that did not end well.

    Raises:
        Interrupted: If the user stopped it; the adapter so far is saved.
        RunError: If it stayed non-finite; the last good adapter is saved.
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
            "Loss, gradient or weights were not finite again, with learning rates "
            f"multiplied by {loop.EASED:g}; stopped after {outcome.steps} of {planned} "
            f"steps. The adapter is that of step {outcome.kept}.",
            where=str(run_dir),
            hint="Begin anew with a tenth of the --learning-rate, look at the rows of "
            "the first skipped step in steps.jsonl, or use --precision float32.",
        )
