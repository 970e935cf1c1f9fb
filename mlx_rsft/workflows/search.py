"""Settings by successive halving: the best of the worst split, within a KL budget.

OUT/  search.json        the plan, written before training; then every trial
      profile.toml       what was chosen, for ``train --profile``; one per tag if asked
      runs/TRIAL/        one run each, as ``train`` writes it, and scores/SPLIT.json

Test splits are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import CheckFailed, ConfigError, DataError
from mlx_rsft.evaluation import Gauge
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.records import finite
from mlx_rsft.workflows import arms, assemble, foreseen, halving, staging, trials
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.halving import Contest, Places
from mlx_rsft.workflows.outcome import limits, profile, told, winner
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.staging import Plot

METRICS = ("exact_match", "token_accuracy")
"""The first decides; it comes in steps of a row, so the next breaks ties."""
KL_BUDGET = 2.0
"""Nats per token on the bundled prompts: a guard against wreckage, not a fine sieve.

Set by one measurement: the demo model moves by 1.3 in 45 steps at the default rate, while
it learns a new answer format; a budget of 0.2 left no trial at all.
"""
FILE = "search.json"
BEYOND = ("evaluation.splits", "evaluation.general", "evaluation.side_effects")
"""Settings of what is looked at once a run has been chosen."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be searched, beside the settings of a run.

    Attributes:
        arms: Objectives as they are written on the command line; none: the default.
        rates: Learning rates; none: a third, one and three times the one in the settings.
        most: Trials at most; 0: the whole grid.
        per_tag: Whether to search for each tag of the training rows by itself.
    """

    out: Path
    arms: Sequence[str] = ()
    rates: Sequence[float] = ()
    most: int = 0
    eta: int = trials.ETA
    kl_budget: float = KL_BUDGET
    per_tag: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """A search that is ready: everything loaded, nothing trained."""

    stage: Stage
    contests: Sequence[Contest]
    request: Request
    plan: Mapping[str, Any]


def prepare(resolved: Resolved, request: Request, reporter: Reporter) -> Search:
    """Check everything, load it once, and count what the search will cost.

    Raises:
        RsftError: Whatever is wrong with arms, settings, data, model or folder.
    """
    gauges, objectives = _checked(resolved, request)
    config = resolved.config
    validation = assemble.validation_paths(config)
    if not validation:
        raise DataError(
            "There is no validation split to choose by.",
            where=config.data.source,
            hint="Add valid.jsonl and, for changed conditions, valid_NAME.jsonl.",
        )
    training = {TRAIN: assemble.training_paths(config)[TRAIN]}
    plot = Plot(request.out, objectives, [config.seed], training, validation, gauges)
    stage = staging.stage(resolved, plot, reporter)
    by_tag = {"": objectives}
    if request.per_tag:
        by_tag = {tag: trials.for_tag(objectives, tag) for tag in _tags(stage)}
        together = {name: one for each in by_tag.values() for name, one in each.items()}
        stage = replace(stage, arms=together)
    contests = [
        _contest(stage, tag, list(each), request) for tag, each in by_tag.items()
    ]
    stage = replace(stage, trunk=_trunk(stage, contests, reporter))
    plan = foreseen.plan(stage, contests, request.eta, reporter)
    return Search(stage, contests, request, plan)


def _checked(
    resolved: Resolved, request: Request
) -> tuple[dict[str, Gauge], dict[str, Objective]]:
    staging.check_settings(resolved, "A search")
    staging.refuse_named(
        resolved,
        BEYOND,
        "A search looks at validation splits, and at nothing beside.",
        hint="Leave it out; mlx-rsft eval or compare has a use for it.",
    )
    config = resolved.config
    if config.adapter.method == "full":
        raise ConfigError(
            "The KL budget compares a model with itself without its adapter.",
            where="adapter.method",
            hint="Search with --method lora or dora.",
        )
    chosen = replace(config.evaluation, metrics=config.evaluation.metrics or METRICS)
    gauges = assemble.metrics(replace(config, evaluation=chosen))
    for name, gauge in gauges.items():
        if gauge.better not in ("higher", "lower"):
            raise ConfigError(
                f"{name} cannot decide, because neither more nor less of it is better.",
                where="evaluation.metrics",
                hint="Name others, such as exact_match,nll.",
            )
    objectives = arms.parse(request.arms or trials.ARMS)
    staging.check_folder(request.out, mark=FILE, aside={FILE}, what="search")
    return gauges, objectives


def _tags(stage: Stage) -> list[str]:
    tags = sorted({tag for row in stage.splits.rows[TRAIN] for tag in row.tags})
    if not tags:
        raise ConfigError(
            "No training row has any tag.",
            where="--per-tag",
            hint="Leave it out, or give rows a column tags.",
        )
    return tags


def _contest(
    stage: Stage, tag: str, objectives: Sequence[str], request: Request
) -> Contest:
    given = stage.resolved.config.optimizer.learning_rate
    rates = request.rates or [float(f"{given * one:.3g}") for one in arms.RATES]
    (seed,) = stage.seeds
    tried = trials.grid(objectives, rates, request.most, seed)
    plan = trials.rungs(len(tried), stage.num_steps, request.eta)
    return Contest(tag, tried, plan, _places(stage, tag), request.kl_budget)


def _places(stage: Stage, tag: str) -> Places:
    """The validation rows of a tag; all rows for no tag, or if none of them has it."""
    rows = {name: stage.splits.rows[name] for name in stage.tests}
    tagged = {
        name: [place for place, row in enumerate(split) if tag in row.tags]
        for name, split in rows.items()
    }
    held = {name: places for name, places in tagged.items() if places}
    return held or {name: range(len(split)) for name, split in rows.items()}


def _trunk(
    stage: Stage, contests: Sequence[Contest], reporter: Reporter
) -> Trunk | None:
    size = stage.resolved.config.training.batch_size
    validated = sum(len(stage.splits.rows[name]) for name in stage.tests)
    planned = [rung for contest in contests for rung in contest.rungs]
    trained = size * sum(rung.trials * rung.steps for rung in planned)
    runs = sum(rung.trials for rung in planned)
    return staging.trunk(stage, trained, validated * (runs + 1), reporter)


def search(found: Search, reporter: Reporter) -> dict[str, Any]:
    """Train and score rung after rung; what is there already is not repeated.

    Returns:
        What ``search.json`` holds.

    Raises:
        Interrupted: If the user stopped it; the same command goes on.
        CheckFailed: If no trial stays within the KL budget.
    """
    stage, out = found.stage, found.request.out
    place = out / FILE
    files.write_json(place, _finite({**found.plan, "finished": False}))
    searches: list[dict[str, Any]] = []
    for contest in found.contests:
        if contest.tag:
            reporter.note(f"rows with the tag {contest.tag}:")
        rungs = halving.halve(stage, contest, reporter)
        name = f"profile-{arms.file_name(contest.tag)}" if contest.tag else "profile"
        file = out / f"{name}.toml"
        best = winner(contest, rungs)
        if best is None:
            file.unlink(missing_ok=True)  # an earlier budget's
        else:
            files.write_text(file, profile(stage, contest, best))
        told_file = file.name if best else None
        searches.append(told(stage, contest, rungs, told_file))
    if stage.trunk:
        stage.trunk.close()
    record = {
        **found.plan,
        "searches": searches,
        "limits": limits(stage, found.contests),
        "finished": True,
    }
    files.write_json(place, _finite(record))
    _raise_if_none(searches, found.request)
    return _finite(record)


def _raise_if_none(searches: Sequence[Mapping[str, Any]], request: Request) -> None:
    lost = [each for each in searches if each["chosen"] is None]
    if not lost:
        return
    tags = ", ".join(str(each["tag"]) for each in lost if each["tag"])
    raise CheckFailed(
        f"No trial{f' for {tags}' if tags else ''} could be chosen.",
        where=str(request.out / FILE),
        hint="Every trial is there with its reason; raise --kl-budget, lower "
        "--learning-rates, or add arms with an anchor.",
    )


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: finite(value) for key, value in record.items()}
