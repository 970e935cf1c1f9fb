"""The arms of a comparison or search: what differs, and training them alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rsft import config as configuration
from mlx_rsft import records
from mlx_rsft.config import Resolved
from mlx_rsft.data import batching
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.errors import ConfigError, Interrupted, RsftError, raise_together
from mlx_rsft.evaluation import Gauge
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective, build
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import loop
from mlx_rsft.workflows import finished, mishaps, running, train
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.job import Job
from mlx_rsft.workflows.reporter import Reporter

ARM = "--arm"
RATES = (1 / 3, 1.0, 3.0)
"""What a tuned learning rate may be, as multiples of the one that was given."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that the arms share: loaded, rendered and drawn once.

    Attributes:
        arms: Objectives by their names.
        starts: The trainable parameters that each seed begins with.
        tests: Names of the splits that finished runs are scored on.
        gauges: The metrics; the first one decides.
        every: Steps between looks at the ``valid`` split; 0: a run never looks.
    """

    out: Path
    resolved: Resolved
    arms: Mapping[str, Objective]
    baseline: str
    seeds: Sequence[int]
    loaded: LoadedModel
    split: SplitModel
    splits: Splits
    tests: Sequence[str]
    adapter_config: Mapping[str, Any]
    starts: Mapping[int, Mapping[str, Any]]
    trunk: Trunk | None
    gauges: Mapping[str, Gauge]
    every: int

    @property
    def num_steps(self) -> int:
        training = self.resolved.config.training
        return loop.num_steps(training, len(self.splits.rows[TRAIN]))

    @property
    def decisive(self) -> str:
        """The metric that the verdict rests on."""
        return next(iter(self.gauges))

    def begin(self, seed: int) -> None:
        """Put the model back to where this seed begins."""
        self.loaded.model.update(dict(self.starts[seed]))


@dataclass(frozen=True, slots=True)
class Run:
    """One arm, trained from one seed.

    Attributes:
        steps: How long; 0: as long as the settings say.
    """

    arm: str
    seed: int
    learning_rate: float
    path: Path
    steps: int = 0

    @property
    def result(self) -> Mapping[str, Any]:
        """What its manifest says of how it went."""
        return finished.card(self.path)["result"]


def parse(texts: Sequence[str]) -> dict[str, Objective]:
    """The objectives that ``--arm`` names, by their names.

    Raises:
        ConfigError: If there is none, one is unknown, or one is there twice.
    """
    arms: dict[str, Objective] = {}
    problems: list[RsftError] = []
    for text in texts:
        try:
            objective = build({"name": text})
        except ConfigError as problem:
            problems.append(problem)
            continue
        if str(objective) in arms:
            problems.append(
                ConfigError(f"{str(objective)!r} is there twice.", where=ARM)
            )
        arms[str(objective)] = objective
    if not texts:
        problems.append(
            ConfigError("No arm is given.", hint="Pass --arm sft --arm dft:floor=0.1.")
        )
    raise_together(problems)
    return arms


def recognise(stage: Stage, *, tune: bool) -> None:
    """Raise RunError if runs are there that belong to another comparison."""
    rate = stage.resolved.config.optimizer.learning_rate
    for arm in stage.arms:
        for seed in stage.seeds:
            run = _run(stage, arm, seed, rate, tune=tune)
            finished.is_there(run.path, _job(stage, run))


def train_all(stage: Stage, *, tune: bool, reporter: Reporter) -> list[Run]:
    """Every arm from every seed; runs that are there and finished are not repeated."""
    given = stage.resolved.config.optimizer.learning_rate
    rates = dict.fromkeys(stage.arms, given)
    if tune:
        rates = {arm: _tuned(stage, arm, reporter) for arm in stage.arms}
    return [
        _trained(stage, arm, seed, rates[arm], reporter, tune=tune)
        for seed in stage.seeds
        for arm in stage.arms
    ]


def _warm(stage: Stage, reporter: Reporter) -> None:
    """Run the frozen blocks on all rows that will be trained on, for no arm's account."""
    rows = stage.splits.rows[TRAIN]
    size = stage.resolved.config.training.batch_size
    places = {
        place
        for seed in stage.seeds
        for step in range(stage.num_steps)
        for place in batching.window(step, len(rows), size, seed)
    }
    fill(stage, [rows[place] for place in sorted(places)], reporter)


def fill(stage: Stage, rows: Sequence[Example], reporter: Reporter) -> None:
    """Run the frozen blocks on rows, where what they make of them is kept."""
    trunk = stage.trunk
    new = [row for row in rows if trunk and not trunk.was_asked(row.tokens)]
    if trunk and new:
        with reporter.task("run the frozen blocks", len(new)) as advance:
            for row in new:
                trunk.states([row.tokens], len(row.tokens))
                advance(1)


def _tuned(stage: Stage, arm: str, reporter: Reporter) -> float:
    """The rate that does best on ``valid`` with the first seed; the given one in a tie."""
    given = stage.resolved.config.optimizer.learning_rate
    gauge = stage.gauges[stage.decisive]
    sign = 1.0 if gauge.better == "higher" else -1.0
    reached: dict[float, float] = {}
    for factor in sorted(RATES, key=lambda factor: factor != 1.0):
        rate = float(f"{given * factor:.3g}")
        run = _trained(stage, arm, stage.seeds[0], rate, reporter, tune=True)
        last = [e for e in looks(run) if e["metric"] == stage.decisive][-1]
        diverged = run.result.get("diverged", False)
        reached[rate] = float("-inf") if diverged else sign * last["value"]
    best = max(reached, key=reached.__getitem__)
    reporter.note(
        f"{arm}: learning rate {best:g}, the best on valid of {len(reached)}."
    )
    return best


def looks(run: Run) -> list[dict[str, Any]]:
    """What was measured on ``valid`` during a run."""
    file = RunDir(run.path).evals
    return list(records.read_lines(file)) if file.exists() else []


def _trained(
    stage: Stage, arm: str, seed: int, rate: float, reporter: Reporter, *, tune: bool
) -> Run:
    return train_one(stage, _run(stage, arm, seed, rate, tune=tune), reporter)


def train_one(stage: Stage, run: Run, reporter: Reporter) -> Run:
    """Train one run, unless it is there already.

    Raises:
        Interrupted: If the user stopped it; the same command goes on.
        RunError: If there is another run in its place.
    """
    job = _job(stage, run)
    if finished.is_there(run.path, job):
        reporter.note(f"{run.path.name} is there already.")
        return run
    _warm(stage, reporter)
    stage.begin(run.seed)
    reporter.note(f"{run.arm}, seed {run.seed}:")
    with mishaps.named(job, run.path, "give the same command"):
        _, outcome = running.carry_out(job, run.path, reporter)
    if outcome.interrupted:
        raise Interrupted(
            f"Stopped in {run.path.name}, after {outcome.steps} of {job.num_steps} steps.",
            hint="The same command goes on with that run; those before it are kept.",
        )
    if outcome.diverged:
        reporter.note(
            f"{run.path.name}: loss or gradient stayed non-finite; stopped after "
            f"{outcome.steps} of {job.num_steps} steps. It counts as diverged, and is "
            "scored as it began."
        )
    return run


def _run(stage: Stage, arm: str, seed: int, rate: float, *, tune: bool) -> Run:
    name = run_name(arm, seed, f"-rate{rate:g}" if tune else "")
    return Run(arm, seed, rate, stage.out / "runs" / name)


def run_name(arm: str, seed: int, middle: str = "") -> str:
    """The folder of an arm's run from a seed."""
    return f"{file_name(arm)}{middle}-seed{seed}"


def file_name(text: str) -> str:
    """An arm's or a tag's name as part of a file's."""
    return re.sub(r"[^\w.=+-]+", "-", text)


def _job(stage: Stage, run: Run) -> Job:
    objective = stage.arms[run.arm]
    table = {f"objective.{key}": value for key, value in objective.as_table().items()}
    settings = {
        "seed": run.seed,
        "optimizer.learning_rate": run.learning_rate,
        "evaluation.metrics": _looked_at(stage),
        **table,
        **({"training.steps": run.steps} if run.steps else {}),
    }
    read = (TRAIN, VALID) if stage.every else (TRAIN,)
    held = [name for name in read if name in stage.splits.rows]
    return Job(
        configuration.changed(stage.resolved, settings, ARM),
        objective,
        Splits(
            {name: stage.splits.rows[name] for name in held},
            {name: stage.splits.files[name] for name in held},
        ),
        stage.loaded,
        stage.split,
        stage.adapter_config,
        stage.trunk,
        every=stage.every,
    )


def _looked_at(stage: Stage) -> tuple[str, ...]:
    """What runs measure as they go: samples take too long for that, unless they decide."""
    return tuple(
        name
        for name, gauge in stage.gauges.items()
        if name == stage.decisive or not gauge.sampling
    )


def restore(stage: Stage, run: Run) -> None:
    """Put what a run has trained on the model, ready to be measured."""
    stage.begin(run.seed)
    weights = RunDir(run.path).adapter / "adapters.safetensors"
    stage.loaded.model.load_weights(str(weights), strict=False)
    mx.eval(stage.loaded.model.trainable_parameters())
    stage.loaded.model.eval()


def check_tags(arms: Mapping[str, Objective], splits: Splits) -> None:
    """Raise ConfigError if an arm names a tag that no training row has."""
    for objective in arms.values():
        train.check_tags(objective, splits.rows[TRAIN])
