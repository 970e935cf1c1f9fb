"""What training did beside its task: how sure the model is, what it writes and forgot.

Of each arm the first seed is looked at, on a few rows that the seed picks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlx_rsft import files
from mlx_rsft.data.classes import CLASSES, classify
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import generate, tokenwise
from mlx_rsft.evaluation.differences import Measurements
from mlx_rsft.loss import NUM_BINS
from mlx_rsft.objectives import Objective, TokenStats
from mlx_rsft.objectives.tokens import LAGGED, REFERENCE
from mlx_rsft.records import finite
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import Config
from mlx_rsft.training.known import beforehand
from mlx_rsft.workflows import arms, assemble, effects, finished
from mlx_rsft.workflows.arms import Run, Stage
from mlx_rsft.workflows.reporter import Reporter

EXAMPLES = 4
"""Rows of each split that are shown, where arms differ."""
DECIDES = "exact_match"
FILE = "aftermath.json"
BASE = "base"
"""The bare model's name among the arms."""


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Parts of ``comparison.json``; ``weights`` by arm, then by class of token."""

    histograms: Mapping[str, Any]
    side_effects: Sequence[Mapping[str, Any]]
    examples: Sequence[Mapping[str, Any]]
    weights: Mapping[str, Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found of one arm."""

    histogram: list[int]
    weights: Mapping[str, float] | None
    side_effects: list[dict[str, Any]]
    written: list[str]


def is_wanted(config: Config) -> bool:
    """Whether a comparison looks for side effects: unless somebody turned it off."""
    return config.evaluation.side_effects != effects.OFF


def look(
    stage: Stage,
    runs: Sequence[Run],
    reached: Mapping[str, Measurements],
    split: str,
    reporter: Reporter,
) -> Aftermath:
    """Look at every arm again, now that all is measured; once, then it is kept.

    Args:
        stage: What the arms share.
        runs: All of them.
        reached: What they reached on each split.
        split: Whose rows are looked at.
        reporter: Told how far it is.
    """
    shown = [
        (name, place)
        for name in stage.tests
        for place in disputed(stage, reached, name)
    ]
    key = json.loads(json.dumps([_identity(stage, runs), split, shown]))
    place = stage.out / FILE
    if place.exists():
        held = json.loads(place.read_text(encoding="utf-8"))
        if held["of"] == key:
            return Aftermath(**held["found"])
    found = _look(stage, runs, split, shown, reporter)
    files.write_json(place, {"of": key, "found": finite(asdict(found))})
    return found


def _identity(stage: Stage, runs: Sequence[Run]) -> list[Any]:
    """What a look depends on: which runs, of when, and which rows."""
    begun = {run.path.name: finished.card(run.path)["started"] for run in runs}
    hashes = [sorted(stage.splits.files[name].values()) for name in stage.splits.files]
    config = stage.resolved.config
    return [begun, hashes, config.evaluation.max_tokens, is_wanted(config)]


def _look(
    stage: Stage,
    runs: Sequence[Run],
    split: str,
    shown: Sequence[tuple[str, int]],
    reporter: Reporter,
) -> Aftermath:
    rows = effects.some(stage.splits.rows[split], stage.seeds[0])
    stage.begin(stage.seeds[0])
    stage.loaded.model.eval()
    before = tokenwise.read(stage.split, rows, trunk=stage.trunk)
    wanted = is_wanted(stage.resolved.config)
    bare = _asked(stage, rows).of_bare() if wanted else []
    found: dict[str, _Looked] = {}
    first = {run.arm: run for run in reversed(runs)}
    with reporter.task("look at every arm again", len(stage.arms)) as advance:
        for arm, objective in stage.arms.items():
            arms.restore(stage, first[arm])
            found[arm] = _looked(stage, objective, rows, shown)
            if wanted:
                beside = effects.joined(found[arm].side_effects, bare)
                effects.note(RunDir(first[arm].path), beside)
            advance(1)
    return Aftermath(
        {
            "bins": NUM_BINS,
            "before": _histogram(before),
            "after": {arm: looked.histogram for arm, looked in found.items()},
        },
        [
            {"arm": arm, **effect}
            for arm, told in ({BASE: bare} | _told(found)).items()
            for effect in told
        ],
        _examples(stage, shown, found),
        {arm: looked.weights for arm, looked in found.items()},
    )


def _asked(stage: Stage, rows: Sequence[Example]) -> effects.Asked:
    most = stage.resolved.config.evaluation.max_tokens
    return effects.Asked(stage.split, stage.loaded.tokenizer, rows, most, stage.trunk)


def _told(found: Mapping[str, _Looked]) -> dict[str, list[dict[str, Any]]]:
    return {arm: looked.side_effects for arm, looked in found.items()}


def disputed(
    stage: Stage, reached: Mapping[str, Measurements], split: str
) -> list[int]:
    """The places of a few rows that some arms have right and others wrong."""
    if DECIDES not in stage.gauges:
        return []
    marks = np.array([reached[arm][split][DECIDES][0].totals for arm in stage.arms])
    (places,) = np.nonzero(marks.min(axis=0) != marks.max(axis=0))
    random = np.random.default_rng(stage.seeds[0])
    chosen = random.permutation(places)[:EXAMPLES]
    return sorted(int(place) for place in chosen)


def _looked(
    stage: Stage,
    objective: Objective,
    rows: Sequence[Example],
    shown: Sequence[tuple[str, int]],
) -> _Looked:
    stats = tokenwise.read(stage.split, rows, objective.head_facts, trunk=stage.trunk)
    return _Looked(
        _histogram(stats),
        _weights(stage, objective, rows, stats),
        _asked(stage, rows).of_tuned() if is_wanted(stage.resolved.config) else [],
        _answers(stage, [stage.splits.rows[name][place] for name, place in shown]),
    )


def _histogram(stats: TokenStats) -> list[int]:
    p = np.exp(np.array(stats.logp, np.float64))
    return np.histogram(p, bins=NUM_BINS, range=(0, 1))[0].tolist()


def _weights(
    stage: Stage, objective: Objective, rows: Sequence[Example], stats: TokenStats
) -> dict[str, float] | None:
    """Mean weight of each class of token; None if it hangs on another model's view."""
    if objective.needs & {REFERENCE, LAGGED}:
        return None
    tokenizer = stage.loaded.tokenizer
    composition = objective.composition
    kept = assemble.kept(composition.keep, tokenizer)
    known = beforehand(rows, range(len(rows)), composition, kept)
    weight = np.array(objective.weight(replace(stats, known=known)), np.float64)
    kinds = classify(rows, tokenizer.eos_token_ids, tokenizer.all_special_ids)
    return {
        name: float(weight[kinds == place].mean())
        for place, name in enumerate(CLASSES)
        if (kinds == place).any()
    }


def _answers(stage: Stage, rows: Sequence[Example]) -> list[str]:
    if not rows:
        return []
    answers = generate.answers(
        stage.loaded.model,
        stage.loaded.tokenizer,
        rows,
        stage.resolved.config.evaluation.max_tokens,
    )
    return [answer.text for answer in answers]


def _examples(
    stage: Stage, shown: Sequence[tuple[str, int]], found: Mapping[str, _Looked]
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for number, (split, place) in enumerate(shown):
        row = stage.splits.rows[split][place]
        answers = {arm: looked.written[number] for arm, looked in found.items()}
        records.append(
            {
                "split": split,
                "row": place,
                "prompt": stage.loaded.tokenizer.decode(
                    list(row.prompt), skip_special_tokens=True
                ),
                "reference": row.answer,
                "answers": answers,
                "right": {
                    arm: text.strip() == row.answer.strip()
                    for arm, text in answers.items()
                },
            }
        )
    return records
