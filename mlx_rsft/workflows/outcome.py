"""What a search has found, in a record, in a profile, and what it cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import manifest
from mlx_rsft.config import Layer
from mlx_rsft.data.source import VALID
from mlx_rsft.workflows import scored, standings
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.halving import Contest, Score
from mlx_rsft.workflows.trials import Trial

SURPASSED = "others did better"


def winner(contest: Contest, rungs: Sequence[Sequence[Score]]) -> Score | None:
    """The first of the last rung, unless even that one may not be chosen."""
    best = rungs[-1][0]
    whole = len(rungs) == len(contest.rungs)
    return best if whole and not best.why_out(contest.kl_budget) else None


def told(
    stage: Stage,
    contest: Contest,
    rungs: Sequence[Sequence[Score]],
    profile_name: str | None,
) -> dict[str, Any]:
    """A search as ``search.json`` has it: every trial, in the order they ended."""
    best = winner(contest, rungs)
    climbed: dict[Trial, list[dict[str, Any]]] = {}
    last: dict[Trial, Score] = {}
    for rung in rungs:
        for rank, score in enumerate(rung, start=1):
            climbed.setdefault(score.trial, []).append(_rung(stage, score, rank))
            last[score.trial] = score

    def place(trial: Trial) -> tuple[bool, int, int]:
        chosen = best is not None and trial == best.trial
        return not chosen, -len(climbed[trial]), climbed[trial][-1]["rank"]

    order = sorted(climbed, key=place)
    return {
        "tag": contest.tag or None,
        "scored_on": {name: len(places) for name, places in contest.places.items()},
        "chosen": str(best.trial) if best else None,
        "profile": profile_name,
        "trials": [
            {
                "name": str(trial),
                "objective": trial.arm,
                "learning_rate": trial.learning_rate,
                "dropped": _why(contest, last[trial], best),
                "rungs": climbed[trial],
            }
            for trial in order
        ],
    }


def _why(contest: Contest, score: Score, best: Score | None) -> str | None:
    if best is not None and score.trial == best.trial:
        return None
    return score.why_out(contest.kl_budget) or SURPASSED


def _rung(stage: Stage, score: Score, rank: int) -> dict[str, Any]:
    worst = {name: score.worst(gauge) for name, gauge in stage.gauges.items()}
    return {
        "steps": score.run.steps or stage.num_steps,
        "rank": rank,
        "worst": {
            name: {"split": split, "value": value}
            for name, (split, value) in worst.items()
        },
        "kl": score.kl.as_record(),
        "splits": {
            split: {name: figure.as_record() for name, figure in found.items()}
            for split, found in score.splits.items()
        },
        "run": f"runs/{score.run.path.name}",
    }


def profile(stage: Stage, contest: Contest, best: Score) -> str:
    """What was chosen as TOML that ``train --profile`` takes, and where it is from."""
    table = stage.arms[best.trial.arm].as_table()
    values = {f"objective.{key}": value for key, value in table.items()}
    values["optimizer.learning_rate"] = best.trial.learning_rate
    made = configuration.resolve([Layer("chosen by search", values)])
    return "\n".join([*_comments(stage, contest, best), "", ""]) + (
        configuration.given_as_toml(made)
    )


def _comments(stage: Stage, contest: Contest, best: Score) -> list[str]:
    config = stage.resolved.config
    gauge = stage.gauges[stage.decisive]
    split, value = best.worst(gauge)
    (seed,) = stage.seeds
    rows = f" on rows with the tag {contest.tag}" if contest.tag else ""
    lines = [
        f"Chosen by mlx-rsft search, {manifest.now()}, among {len(contest.trials)} "
        f"trials{rows}.",
        f"Model {config.model.source}, data {config.data.source}, seed {seed}, "
        f"{stage.num_steps} steps.",
        f"{stage.decisive} {value:.4g} on {split}, the worst of "
        f"{', '.join(contest.places)}.",
        f"KL from the base on general prompts {best.kl.value:.3g} nats/token, budget "
        f"{contest.kl_budget:g}.",
        "No test split was read; the figure is that of the best of many.",
    ]
    return [f"# {' '.join(line.split())}" for line in lines]


def limits(stage: Stage, contests: Sequence[Contest]) -> list[str]:
    """What a search cannot say, in sentences."""
    roles = {scored.role(name) for name in stage.tests}
    said = [
        "One seed: another order of rows may rank the trials otherwise.",
        "The chosen trial's score is the best of many and will be lower on new rows; "
        "mlx-rsft compare says on test splits what it is worth.",
    ]
    if len(contests[0].rungs) > 1:
        said.append("Short runs favour what learns fast; a slow starter may be lost.")
    if scored.SHIFTED not in roles:
        said.append(
            "There is no valid_NAME split: chosen in distribution only, nothing is said "
            "of changed conditions."
        )
    if VALID not in stage.tests:
        said.append("There is no valid split: chosen on shifted rows only.")
    few = standings.FEW_ROWS
    small = [s for s in stage.tests if len(stage.splits.rows[s]) < few]
    if small:
        said.append(f"Fewer than {few} rows: {', '.join(small)}.")
    said += [_untagged(contest) for contest in contests if _is_untagged(stage, contest)]
    return said


def _is_untagged(stage: Stage, contest: Contest) -> bool:
    rows: Mapping[str, Any] = stage.splits.rows
    return bool(contest.tag) and not any(
        contest.tag in row.tags for name in contest.places for row in rows[name]
    )


def _untagged(contest: Contest) -> str:
    return (
        f"No validation row has the tag {contest.tag}: its trials were scored on all."
    )
