"""Successive halving: every trial of a rung is trained and scored, the best go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_rsft import evaluation, files
from mlx_rsft.evaluation import Gauge, general
from mlx_rsft.evaluation.values import Values
from mlx_rsft.records import Metric
from mlx_rsft.workflows import arms, scored
from mlx_rsft.workflows.arms import Run, Stage
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.scored import Rows
from mlx_rsft.workflows.trials import Rung, Trial

DRIFT = "drift_kl"
DIVERGED = "diverged"

Places = Mapping[str, Sequence[int]]
"""Which rows of each split count."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one trained trial reaches.

    Attributes:
        splits: The figures of each validation split, by metric.
        kl: Forward divergence from the base on the bundled general prompts.
        diverged: Whether its training was given up.
    """

    trial: Trial
    run: Run
    splits: Mapping[str, Mapping[str, Metric]]
    kl: Metric
    diverged: bool = False

    def worst(self, gauge: Gauge) -> tuple[str, float]:
        """The split where it does worst by a metric, and what it reaches there."""
        lower = gauge.better == "lower"
        reached = {name: found[gauge.name].value for name, found in self.splits.items()}
        name = (max if lower else min)(reached, key=reached.__getitem__)
        return name, reached[name]

    def why_out(self, kl_budget: float) -> str:
        """Why it may not be chosen; empty if it may."""
        if self.diverged:
            return DIVERGED
        if not self.kl.value <= kl_budget:  # not a number is over it too
            return f"KL {self.kl.value:.3g} is over the budget of {kl_budget:g}"
        return ""


@dataclass(frozen=True, slots=True)
class Contest:
    """One search: what is tried, on which rows it is judged, and what is allowed.

    Attributes:
        tag: The tag whose rows are rectified; empty: all rows.
    """

    tag: str
    trials: Sequence[Trial]
    rungs: Sequence[Rung]
    places: Places
    kl_budget: float


def ranked(
    scores: Sequence[Score], gauges: Sequence[Gauge], kl_budget: float
) -> list[Score]:
    """Those that may be chosen, the best first, in whatever order they came.

    By the worst split of the first metric; equals by the next one, then by the smaller
    divergence, then by name.
    """

    def key(score: Score) -> tuple[Any, ...]:
        signs = [1.0 if gauge.better == "lower" else -1.0 for gauge in gauges]
        worst = [
            sign * score.worst(gauge)[1]
            for sign, gauge in zip(signs, gauges, strict=True)
        ]
        return (*worst, score.kl.value, str(score.trial))

    return sorted((s for s in scores if not s.why_out(kl_budget)), key=key)


def halve(stage: Stage, contest: Contest, reporter: Reporter) -> list[list[Score]]:
    """Train and score rung after rung; the scores of each, the best first.

    A rung has first those that may be chosen. Divergence grows with training, so all
    of a rung can turn out to be over the budget; the next best of the rungs before
    then take their place. Fewer rungs than planned are there if nobody is left.

    Raises:
        Interrupted: If the user stopped it; the same command goes on.
    """
    done: list[list[Score]] = []
    waiting = list(contest.trials)
    gauges = list(stage.gauges.values())
    for number, rung in enumerate(contest.rungs, start=1):
        scores: list[Score] = []
        order: list[Score] = []
        while waiting and not order:
            trials, waiting = waiting[: rung.trials], waiting[rung.trials :]
            place = "in place of those over the budget, " if scores else ""
            reporter.note(
                f"rung {number} of {len(contest.rungs)}: {place}{len(trials)} trials "
                f"of {rung.steps} steps."
            )
            scores += [
                attempt(stage, trial, rung.steps, contest.places, reporter)
                for trial in trials
            ]
            order = ranked(scores, gauges, contest.kl_budget)
        out = [score for score in scores if score not in order]
        done.append([*order, *sorted(out, key=lambda score: score.kl.value)])
        waiting = [score.trial for score in order] + waiting
        if not waiting:
            break
    return done


def attempt(
    stage: Stage, trial: Trial, steps: int, places: Places, reporter: Reporter
) -> Score:
    """Train and score one trial, unless both are there already."""
    run = arms.train_one(stage, _run(stage, trial, steps), reporter)
    arms.restore(stage, run)
    folder = run.path / "scores"
    reached = {
        name: scored.measured(stage, name, folder, f"score {trial}", reporter)
        for name in stage.tests
    }
    drift = scored.measured(
        on_general(stage), general.NAME, folder, f"drift of {trial}", reporter
    )
    return Score(
        trial,
        run,
        summarised(stage, reached, places),
        _drift(drift),
        bool(run.result.get("diverged")),
    )


def bare(
    stage: Stage, places: Places, reporter: Reporter
) -> dict[str, dict[str, Metric]]:
    """What the untrained model reaches; it has to be as a seed begins.

    Its drift is nothing, and is measured only because that takes as long as a trial's.
    """
    title = "score the bare model"
    reached = {
        name: scored.measured_now(stage, name, title, reporter).values
        for name in stage.tests
    }
    scored.measured_now(on_general(stage), general.NAME, title, reporter)
    return summarised(stage, reached, places)


def _run(stage: Stage, trial: Trial, steps: int) -> Run:
    (seed,) = stage.seeds
    name = f"{arms.file_name(trial.arm)}-rate{trial.learning_rate:g}-steps{steps}"
    path = stage.out / "runs" / f"{name}-seed{seed}"
    # The last rung's runs are what train makes of the settings, to the byte.
    given = 0 if steps == stage.num_steps else steps
    return Run(trial.arm, seed, trial.learning_rate, path, given)


def summarised(
    stage: Stage, reached: Mapping[str, Mapping[str, Values]], places: Places
) -> dict[str, dict[str, Metric]]:
    """The figures of each split, over the rows that count."""
    return {
        name: {
            metric: gauge.summarise(reached[name][metric].at(places[name]))
            for metric, gauge in stage.gauges.items()
        }
        for name in places
    }


def _drift(rows: Rows) -> Metric:
    return evaluation.choose([DRIFT])[DRIFT].summarise(rows[DRIFT])


def on_general(stage: Stage) -> Stage:
    """The same stage with nothing on it but the bundled prompts, to measure drift."""
    rows = {general.NAME: general.examples(stage.loaded.tokenizer)}
    hashes = {general.NAME: {general.NAME: files.sha256(general.FILE)}}
    return replace(
        stage, splits=Splits(rows, hashes), gauges=evaluation.choose([DRIFT])
    )
