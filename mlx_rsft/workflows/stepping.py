"""The steps of one run, and between them its looks at ``valid`` and its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_rsft import evaluation, records
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN
from mlx_rsft.data.splits import is_validation
from mlx_rsft.ranks import RankLost
from mlx_rsft.records import StepRecord
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import loop
from mlx_rsft.training.loop import Outcome, Position
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import assemble, ranked
from mlx_rsft.workflows.best import Standing, so_far
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.keeping import Keeper
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.resting import Rests
from mlx_rsft.workflows.spent import Clock


class Looks:
    """Looks at validation splits, which are no part of what the steps take."""

    def __init__(self, job: Job, run: RunDir, clock: Clock, reporter: Reporter) -> None:
        self._job, self._run, self._reporter = job, run, reporter
        self.clock, self._last = clock, -1

    def between(self, step: int) -> None:
        """Look if it is time to, leaving the model as a training model again."""
        every, last = self._job.every, self._job.num_steps
        is_last = step == last and self._job.aim is None  # the adapter will be this one
        if every and (step % every == 0 or step == last) and not is_last:
            self.look(step)
            self._job.loaded.model.train()

    def finish(self, outcome: Outcome) -> None:
        """Look at the state that a run has kept, unless that was done already."""
        kept = outcome.steps if outcome.kept is None else outcome.kept
        if kept != self._last and not self._standing.best:
            self.look(kept)

    @property
    def why_stop(self) -> str:
        """Why the run is to end here; empty if it is not."""
        return self._standing.stop

    @property
    def _standing(self) -> Standing:
        return so_far(self._run.evals, self._job.aim)

    def look(self, step: int) -> None:
        """Measure the splits and write down their metrics."""
        self._last = step
        with self.clock.aside():
            for name, rows in self._job.splits.rows.items():
                if is_validation(name):
                    self._look(step, name, rows)

    def _look(self, step: int, name: str, rows: Sequence[Example]) -> None:
        job = self._job
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
        for metric, found in measured.metrics.items():
            entry = {"step": step, "split": name, "metric": metric, **found.as_record()}
            records.append(self._run.evals, entry)


def train(
    job: Job, run: RunDir, looks: Looks, rests: Rests, reporter: Reporter
) -> Outcome:
    """Make all steps of a run; the model is left with its last good state.

    Raises:
        RankLost: If another rank is gone; the state so far is saved.
    """
    config = job.resolved.config
    stepper = assemble.stepper(
        job.split, job.objective, job.loaded, config, job.trunk, job.ranks
    )
    keeper = Keeper(run, stepper, job, looks.clock)
    way = _Way(job, run, stepper, keeper, looks, rests, reporter)
    try:
        outcome = way.go(keeper.begin())
        if keeper.can_go_back(outcome):
            start = keeper.go_back(outcome)
            reporter.note(start.note)
            outcome = way.go(start)
    except RankLost as problem:
        with loop.undisturbed():  # what launched the ranks ends the others at once
            reporter.note(problem.message)
            keeper.save()
        raise
    return keeper.end(outcome)


@dataclass(frozen=True, slots=True)
class _Way:
    """What goes along with the steps, from wherever they start."""

    job: Job
    run: RunDir
    stepper: Stepper
    keeper: Keeper
    looks: Looks
    rests: Rests
    reporter: Reporter

    def go(self, start: Position) -> Outcome:
        job, config = self.job, self.job.resolved.config
        if self.looks.why_stop:  # a run that was cut off right after its last step
            return Outcome(start.step)
        ranked.send(job.ranks, self.run, start)
        with self.reporter.task(f"train {job.objective}", job.num_steps) as advance:
            if start.step:
                advance(start.step)

            def record(step: StepRecord) -> str:
                if start.note and step.step == start.step + 1:
                    step = replace(step, note=start.note)
                step = replace(step, paused=self.rests.told())
                records.append(self.run.steps, step.as_record())
                noted = {"step": step.step, **step.rows.as_record()}
                records.append(self.run.weights, noted)
                told = f"loss {step.loss:.3f}  NLL {step.nll:.3f}  p {step.mean_p:.2f}"
                advance(1, told)
                if not step.skipped:
                    self.looks.between(step.step)
                self.keeper.after(step)
                why_stop = self.looks.why_stop
                if not why_stop and step.step < job.num_steps:
                    self.rests.between(step.step, self.keeper.save)
                return why_stop

            return loop.run(
                self.stepper,
                job.splits.rows[TRAIN],
                config.training,
                config.optimizer,
                seed=config.seed,
                record=record,
                start=start,
            )
