"""Carry an experiment out with ``mlx_rsft compare``, and say what became of its claims.

OUT/NAME/LABEL/  data/      rows of every split
                 arms/      every arm, each at the best of three learning rates
                 low/       plain SFT at a fifth of its rate, not tuned further
                 found.json settings, means, claims with verdicts, cost

What is there is not done again, so a stopped experiment goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import claims as claiming
import own
import reader
from claims import LOG_STEPS, Claim, Reached
from tasks import Rows, Task
from tiers import READER, Tier

from mlx_rsft import __version__, files, manifest
from mlx_rsft import config as configuration
from mlx_rsft.config import FLAG, Layer, Resolved
from mlx_rsft.data.source import VALID
from mlx_rsft.evaluation.values import Values
from mlx_rsft.objectives.choose import AUTO
from mlx_rsft.workflows import arms as training
from mlx_rsft.workflows import train
from mlx_rsft.workflows.compare import Request, compare
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.scored import BASE

FOUND = "found.json"
PLAIN = "sft"
LOW = "sft at a fifth of the rate"
LOWER = 0.2
NO_CURVE = 2
"""The beginning and the end of a run are no learning curve."""
VALID_FROM = 0.9
"""Share of ``valid`` that is right when a format counts as learned."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A hypothesis, and how it is tried.

    Attributes:
        arms: Objectives; plain SFT at a fifth of the rate is always added.
        steps: Optimizer steps of a run, by tier.
        metrics: The first one chooses learning rates.
        looks: How often a run looks at ``valid``.
        own_answers: Train on what the bare model writes by itself, where it is right.
        settings: Of every run, over those of the tier.
        runs_of: The experiment whose runs it judges; empty: its own.
    """

    name: str
    question: str
    task: Task
    arms: Sequence[str]
    steps: Mapping[str, int]
    claims: Sequence[Claim]
    metrics: Sequence[str] = ("exact_match",)
    looks: int = 1
    own_answers: bool = False
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    runs_of: str = ""


def carry_out(
    experiment: Experiment, size: str, tier: Tier, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train, measure and judge; what ``found.json`` holds.

    Raises:
        Interrupted: If stopped; the same command goes on.
    """
    place = out / experiment.name / tier.label / FOUND
    folder = out / (experiment.runs_of or experiment.name) / tier.label
    if place.exists():
        return json.loads(place.read_text(encoding="utf-8"))
    began = time.perf_counter()
    model = str(reader.made(out)) if tier.model == READER else tier.model
    _write_rows(experiment, tier, model, folder / "data", reporter)
    resolved = settings(experiment, size, tier, model, folder / "data")
    every = max(1, experiment.steps[size] // experiment.looks)
    request = Request(
        experiment.arms, folder / "arms", tier.seeds, tune_rate=True, every=every
    )
    rates, reached = compared(resolved, request, reporter)
    against = against_plain(reached, experiment.metrics[0])
    found = {
        "name": experiment.name,
        "question": experiment.question,
        "tier": size,
        "model": tier.label,
        "steps": experiment.steps[size],
        "seeds": tier.seeds,
        "prior": probed(resolved, reporter),
        # What every arm gains over plain SFT is told once of the same runs.
        **results(
            rates, reached, experiment.claims, [] if experiment.runs_of else against
        ),
        "seconds": time.perf_counter() - began,
    }
    files.write_json(place, found)
    return found


def results(
    rates: Mapping[str, float],
    reached: Reached,
    claims: Sequence[Claim],
    against: Sequence[Claim],
) -> dict[str, Any]:
    """What was reached, and what became of the claims, one by one and together.

    Args:
        rates: The learning rate of every arm.
        reached: Every arm's values, by split and metric.
        claims: What was expected.
        against: Every arm against plain SFT.
    """
    judged = claiming.judge(claims, reached)
    return {
        "version": __version__,
        "created": manifest.now(),
        "rates": rates,
        "means": means(reached),
        "against": [asdict(one) for one in claiming.judge(against, reached)],
        "claims": [asdict(one) for one in judged],
        "verdict": claiming.verdict(judged),
    }


def _write_rows(
    experiment: Experiment, tier: Tier, model: str, folder: Path, reporter: Reporter
) -> None:
    if folder.exists():
        return
    rows = experiment.task(tier.world, tier.train, tier.tests)
    if experiment.own_answers:
        template = str(tier.settings.get("data.template", "model"))
        rows = own.only(rows, ("train", "valid"), model, template, reporter)
    with files.new_folder(folder) as scratch:
        write(rows, scratch)


def write(rows: Rows, folder: Path) -> None:
    """Every split as ``SPLIT.jsonl``."""
    for split, held in rows.items():
        lines = (
            json.dumps({"id": f"{split}-{n}", **row}, ensure_ascii=False)
            for n, row in enumerate(held)
        )
        files.write_text(
            folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines)
        )


def settings(
    experiment: Experiment, size: str, tier: Tier, model: str, data: Path
) -> Resolved:
    """What every run of an experiment is set to."""
    given = {
        "model.source": model,
        "data.source": str(data),
        "optimizer.learning_rate": tier.rate,
        "training.steps": experiment.steps[size],
        "evaluation.metrics": list(experiment.metrics),
        **tier.settings,
        **experiment.settings,
    }
    return configuration.resolve([Layer(FLAG, given)])


def compared(
    resolved: Resolved, request: Request, reporter: Reporter
) -> tuple[dict[str, float], dict[str, Any]]:
    """Every arm at its best rate of three, then plain SFT at a fifth of its best.

    Args:
        resolved: What every run is set to.
        request: The comparison; the other one lies beside it.
        reporter: Told how far it is.

    Returns:
        Learning rates by arm, and what was reached.
    """
    resolved = configuration.changed(resolved, {"evaluation.side_effects": "off"}, FLAG)
    tuned = compare(resolved, request, reporter)
    rates = {arm["name"]: arm["learning_rate"] for arm in tuned["arms"][1:]}
    rates[LOW] = float(f"{rates[PLAIN] * LOWER:.3g}")
    given = {"optimizer.learning_rate": rates[LOW]}
    lower = configuration.changed(resolved, given, FLAG)
    folder = request.out.with_name("low")
    if not folder.exists():  # it is the same bare model, and scored by now
        with files.new_folder(folder) as scratch:
            shutil.copytree(request.out / BASE, scratch / BASE)
    plain = replace(request, arms=(PLAIN,), out=folder, tune_rate=False)
    low = _reached(folder, compare(lower, plain, reporter))[PLAIN]
    return rates, {**_reached(request.out, tuned), LOW: low}


def _reached(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Every row's values, as the comparison has kept them."""
    found: dict[str, Any] = {}
    for arm in record["arms"][1:]:  # the first is the bare model
        name, rate = arm["name"], arm["learning_rate"]
        tuned = rate if record["method"]["tuned"] else None
        runs = [run_folder(out, name, seed, tuned) for seed in record["seeds"]]
        found[name] = {
            split: _values([run / "scores" / f"{split}.json" for run in runs])
            for split in record["splits"]
        }
        if len({look["step"] for look in record["curves"]}) > NO_CURVE:
            found[name][VALID] = {LOG_STEPS: [log_steps(record, name)]}
    return found


def run_folder(out: Path, arm: str, seed: int, tuned: float | None) -> Path:
    """Where a comparison keeps a run.

    Args:
        out: The comparison.
        arm: Its objective.
        seed: Of the run.
        tuned: Its learning rate, where arms chose theirs.
    """
    middle = "" if tuned is None else f"-rate{tuned:g}"
    return out / "runs" / training.run_name(arm, seed, middle)


def _values(places: Sequence[Path]) -> dict[str, list[Values]]:
    held = [json.loads(place.read_text(encoding="utf-8"))["rows"] for place in places]
    return {metric: [Values(**rows[metric]) for rows in held] for metric in held[0]}


def log_steps(record: Mapping[str, Any], arm: str) -> Values:
    """How long each seed took; one that never got there, twice as long as it ran."""
    decides = record["method"]["decides"]
    steps: list[float] = []
    for seed in record["seeds"]:
        looks = [
            look["step"]
            for look in record["curves"]
            if (look["arm"], look["seed"], look["metric"]) == (arm, seed, decides)
            and look["value"] >= VALID_FROM
        ]
        steps.append(math.log(max(1, min(looks, default=2 * record["steps"]))))
    return Values(steps)


def means(reached: Reached) -> dict[str, Any]:
    """Every arm's figures on every split, with intervals."""
    return {
        arm: {
            split: {
                metric: claiming.mean(seeds, metric)
                for metric, seeds in metrics.items()
            }
            for split, metrics in splits.items()
        }
        for arm, splits in reached.items()
    }


def against_plain(reached: Reached, metric: str) -> list[Claim]:
    """Every arm against plain SFT on every test split, as claims to be better."""
    return [
        Claim(
            f"{metric}, {arm} - {PLAIN}, {split}",
            metric,
            split,
            {arm: 1.0, PLAIN: -1.0},
        )
        for arm, splits in reached.items()
        if arm != PLAIN
        for split in splits
        if split != VALID
    ]


def probed(resolved: Resolved, reporter: Reporter) -> dict[str, Any]:
    """What ``--objective auto`` finds of the training rows, and would choose."""
    auto = configuration.changed(resolved, {"objective.name": AUTO}, FLAG)
    chosen = train.prepare(auto, Path(resolved.config.data.source) / "run", reporter)
    assert chosen.probe, "auto probes"
    return chosen.probe.as_record()
