"""One fine-tuning run: everything is checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import rundir
from mlx_rsft.config import Resolved
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import ConfigError, Interrupted, RunError, nearest
from mlx_rsft.evaluation import refusals
from mlx_rsft.models import adapters
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.ranks import ALONE, RankLost, Ranks
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import Config
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.workflows import (
    assemble,
    best,
    caching,
    effects,
    keeping,
    mishaps,
    ranked,
    resuming,
    running,
    sizing,
    starting,
)
from mlx_rsft.workflows.caching import Passes
from mlx_rsft.workflows.choosing import choose_objective
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.reporter import Reporter, Silent


def prepare(resolved: Resolved, run_dir: Path, reporter: Reporter) -> Job:
    """Check everything a run needs, cheapest first, and load it.

    Raises:
        RsftError: Whatever is wrong with settings, data, run directory or model.
    """
    ranks = ranked.gathered(resume=False)
    configuration.require(resolved.config, "model.source", "data.source")
    assemble.check_length_settings(resolved)
    starting.check(resolved)
    config = resolved.config
    optimizers.check(config.optimizer, config.adapter)
    adapters.check(config.adapter)
    best.aim(config)
    assemble.metrics(config)
    table = {"name": "sft"} if assemble.is_auto(config) else config.objective
    named, objective = assemble.with_objective(resolved, table)
    if ranks.leads:
        rundir.check_free(run_dir)
    return _loaded(resolved, named, objective, reporter, ranks)


def prepare_again(
    given: Resolved, run_dir: Path, reporter: Reporter, extend_to: int = 0
) -> Job:
    """Load a run that was cut off as it began, ready to go on from its checkpoint.

    The settings given may repeat those of the run; few may be others.

    Args:
        given: The settings.
        run_dir: The run.
        reporter: Is told where it goes on.
        extend_to: Steps that it is to have now; 0: as many as before.

    Raises:
        RsftError: If nothing can be gone on with, or settings, rows, weights or
            versions are others; says which.
    """
    ranks = ranked.gathered(resume=True, extend_to=extend_to)
    held = resuming.find(run_dir, extend_to) if ranks.leads else None
    resolved = ranked.settings(ranks, held and resuming.settings(held, given))
    named, objective = assemble.with_objective(resolved, resolved.config.objective)
    job = _loaded(resolved, named, objective, reporter, ranks)
    if held is None:
        return job
    assert job.identity is not None
    resuming.check_same(held, job.identity)
    if death := mishaps.after_death(job, run_dir):
        reporter.note(death)
    reporter.note(f"goes on after step {held.step} of {job.num_steps}.")
    return replace(job, held=held, identity=held.card["identity"])


def prepare_replay(held: Resolved, run_dir: Path, reporter: Reporter) -> Job:
    """Load what the ``config.toml`` of a run says, to be trained anew elsewhere.

    Raises:
        RsftError: As ``prepare``; every setting counts as given.
    """
    rundir.check_free(run_dir)
    named, objective = assemble.with_objective(held, held.config.objective)
    return _loaded(held, named, objective, reporter, ALONE)


def _loaded(
    resolved: Resolved,
    named: Resolved,
    objective: Objective,
    reporter: Reporter,
    ranks: Ranks,
) -> Job:
    reporter = reporter if ranks.leads else Silent()
    config = resolved.config
    paths = assemble.training_paths(config)
    loaded = assemble.model(config, reporter)
    splits = assemble.splits(paths, config, loaded, reporter)
    rows = splits.rows[TRAIN]
    if config.evaluation.side_effects == effects.ON:
        refusals.examples(loaded.tokenizer)  # says now if there is no chat template
    split = SplitModel(loaded.model)
    auto = assemble.is_auto(config)
    found = choose_objective(split, rows, config.seed, reporter) if auto else None
    if found:
        table = {"name": found.choice.objective}
        named, objective = assemble.with_objective(resolved, table)
    check_tags(objective, rows)
    named, adapter_config = starting.start(loaded, named)
    split.recomputed = sizing.recomputed(named.config, split, rows, objective, reporter)
    trunk = _trunk(config, loaded, split, rows, reporter)
    named = resuming.settled(named, split, trunk)
    num_steps = loop.num_steps(config.training, len(rows))
    keeping.check(config.training, num_steps)
    job = Job(
        named,
        objective,
        splits,
        loaded,
        split,
        adapter_config,
        trunk,
        found,
        every=config.training.eval_every,
        aim=best.aim(config),
        identity=resuming.identity(named, loaded, splits, num_steps, ranks.size),
        ranks=ranks,
    )
    ranked.agree(job)
    return job


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


def check_tags(objective: Objective, rows: Sequence[Example]) -> None:
    """Raise ConfigError if the objective names a tag that no row has."""
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
        Interrupted: If the user stopped it; the adapter so far is saved, or if it was
            to stop at once, the last checkpoint stands.
        RunError: If loss or weights stayed non-finite, a disk is full or a rank is
            lost; the last good state is saved.
        MachineError: If memory ran out; the last checkpoint stands.
    """
    again = f"mlx-rsft train --run-dir {run_dir} --resume"
    try:
        with mishaps.named(job, run_dir, again):
            result, outcome = running.carry_out(job, run_dir, reporter)
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped at once.",
            where=str(run_dir),
            hint=f"To go on from its last checkpoint: {again}",
        ) from None
    except RankLost as problem:
        raise RunError(
            problem.message,
            where=str(run_dir),
            hint="See what it says. To go on from the last checkpoint, launch all of "
            f"them again: {again}",
        ) from None
    if job.trunk:
        job.trunk.close()
    running.raise_unless_done(outcome, job.num_steps, run_dir)
    adapter = RunDir(run_dir).adapter
    return {"run_dir": str(run_dir), "adapter": str(adapter), **result}
