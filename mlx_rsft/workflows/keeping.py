"""The checkpoints of one run: which are saved and kept, and which it goes back to."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from mlx_rsft import files, manifest, records, rundir
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.records import StepRecord
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import TrainingSettings
from mlx_rsft.training import checkpoint
from mlx_rsft.training.checkpoint import Facts
from mlx_rsft.training.loop import EASED, Outcome, Position
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import sealing
from mlx_rsft.workflows.best import so_far
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.spent import Clock


def check(training: TrainingSettings, num_steps: int) -> None:
    """Raise ConfigError if a checkpoint is to be kept that there will not be."""
    late = [step for step in training.keep_at if step > num_steps]
    if late:
        raise ConfigError(
            f"There will be no step {late[0]} to keep: the run has {num_steps}.",
            where="training.keep_at",
        )


class Keeper:
    """Saves the state of a run every so many steps, and puts back what was saved.

    A run without an identity has no checkpoints; it can go back to its beginning alone.
    """

    def __init__(self, run: RunDir, stepper: Stepper, job: Job, clock: Clock) -> None:
        self._run, self._stepper, self._job, self._clock = run, stepper, job, clock
        self._settings = job.resolved.config.training
        self._known = manifest.record_sha256(job.identity) if job.identity else ""
        self._saved, self._applied, self._ease = -1, 0, 1.0
        self._skipping = False
        trained: Any = stepper.split.model.trainable_parameters()
        self._first = None if job.identity else trained

    def begin(self) -> Position:
        """Start from what is held, or save the beginning; says where the run stands."""
        held = self._job.held
        if held and held.facts:
            position = self._restored(held.facts)
            self._keep_for_good(held.facts.step)
            return position
        if self._known:
            trained: Any = self._stepper.split.model.trainable_parameters()
            self._stepper.optimizer.init(trained)
            self._save(0)
        return Position()

    def after(self, step: StepRecord) -> None:
        """Save if it is time to; never within a row of updates that were left out."""
        self._skipping = step.skipped
        if step.skipped:
            return
        self._applied = step.step
        named = step.step in self._settings.keep_at
        wanted = named or self._is_due(step.step) or self._best() == step.step
        if wanted and checkpoint.is_finite(self._stepper):
            self._save(step.step)

    def save(self) -> None:
        """Save what there is, where a run waits or ends, and this may be the last."""
        if not self._skipping and checkpoint.is_finite(self._stepper):
            self._save(self._applied)

    def end(self, outcome: Outcome) -> Outcome:
        """Save the last state, and leave the model with the best or last good one."""
        lost = bool(outcome.diverged and self._known)
        if lost or not checkpoint.is_finite(self._stepper):
            return replace(
                outcome, diverged=not outcome.interrupted, kept=self._put_good()
            )
        if self._applied == outcome.steps:
            self._save(outcome.steps)
        best = self._best()
        if outcome.interrupted or best in (None, outcome.steps):
            return outcome
        return replace(outcome, kept=self._put(best))

    def can_go_back(self, outcome: Outcome) -> bool:
        """Whether a run came to no good end, and may try once more from further back."""
        if outcome.interrupted or not self._known or self._ease < 1.0:
            return False
        return outcome.diverged or not checkpoint.is_finite(self._stepper)

    def go_back(self, outcome: Outcome) -> Position:
        """Put the last good state back, with lower rates, and forget what came after."""
        good = self._good()
        note = (
            f"Went back from step {outcome.steps} to step {good.step}, because updates "
            f"were not finite; learning rates are multiplied by {EASED:g} from there on."
        )
        before = [step for step in self._there if step <= good.step]
        sealing.went_back(self._run, good, before)
        checkpoint.tidy(self._run.checkpoints, before)
        records.cut(self._run.steps, good.step)
        records.cut(self._run.weights, good.step)
        records.cut(self._run.evals, good.evals)
        return replace(self._restored(replace(good, ease=EASED)), note=note)

    def _put_good(self) -> int:
        if self._first is None:
            best = self._best()
            return self._put(self._good().step if best is None else best)
        self._stepper.split.model.update(self._first)
        return 0

    def _put(self, step: int) -> int:
        path = checkpoint.path(self._run.checkpoints, step)
        return self._restored(checkpoint.read(path)).step

    def _restored(self, facts: Facts) -> Position:
        path = checkpoint.path(self._run.checkpoints, facts.step)
        checkpoint.restore(path, self._stepper)
        self._saved = self._applied = facts.step
        self._ease, self._skipping = facts.ease, False
        return Position(facts.step, facts.ease)

    @property
    def _there(self) -> list[int]:
        return [checkpoint.step_of(p) for p in checkpoint.found(self._run.checkpoints)]

    def _is_due(self, step: int) -> bool:
        every = self._settings.checkpoint_every
        return step % every == 0 if every else step == 0

    def _best(self, until: int | None = None) -> int | None:
        """The step of the best state that was looked at, as of some step."""
        return so_far(self._run.evals, self._job.aim, until).best

    def _good(self) -> Facts:
        """The newest checkpoint from which a finite step was made.

        Only those that every run has count, not those that a stop has left, so that a
        run that was stopped goes back as far as one that was not.
        """
        due = [step for step in self._there if self._is_due(step)] or self._there
        step = max((s for s in due if s < self._applied), default=min(due))
        return checkpoint.read(checkpoint.path(self._run.checkpoints, step))

    def _save(self, step: int) -> None:
        """Save the state after ``step`` steps, unless that is there already.

        Raises:
            RunError: If it cannot be written; those before it are as they were.
        """
        if not self._known or step == self._saved:
            return
        rundir.check_there(self._run)
        for path in (self._run.steps, self._run.weights, self._run.evals):
            if path.exists():
                files.sync(path)
        evals, spent = len(records.held_lines(self._run.evals)), self._clock.spent()
        facts = Facts(step, self._known, evals, asdict(spent), self._ease)
        checkpoint.write(self._run.checkpoints, self._stepper, facts)
        self._keep_for_good(step)
        due = [one for one in self._there if self._is_due(one)]
        newest = {step, *due[-self._settings.keep :]}
        # A run that goes back has the best state of that moment as its best again.
        best = [self._best(one) for one in newest]
        named = checkpoint.for_good(self._run.checkpoints)
        keep = {*newest, *named, *(one for one in best if one is not None)}
        sealing.at_checkpoint(self._run, step, keep)
        checkpoint.tidy(self._run.checkpoints, keep)
        self._saved = step

    def _keep_for_good(self, step: int) -> None:
        """Give a checkpoint that was named its adapter, by which it is told from others.

        A kill may have come before that; the run then goes on from it, and comes here.
        """
        place = checkpoint.path(self._run.checkpoints, step) / checkpoint.ADAPTER
        if step in self._settings.keep_at and not place.is_dir():
            config = dict(self._job.adapter_config)
            adapters.save(self._stepper.split.model, config, place)
