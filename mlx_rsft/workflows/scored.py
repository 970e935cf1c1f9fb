"""What metrics say of every row, by the bare model and by every run; once, then kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlx_rsft import evaluation, files
from mlx_rsft.data.source import TEST, TRAIN, VALID
from mlx_rsft.evaluation import Measured
from mlx_rsft.evaluation.differences import Measurements
from mlx_rsft.evaluation.values import Values
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import arms, sealing
from mlx_rsft.workflows.arms import Run, Stage
from mlx_rsft.workflows.reporter import Reporter

BASE = "base"
"""The name of the untrained model among the arms."""
IN, SHIFTED = "in", "shifted"
SAMPLE = 256
"""So many training rows show how the bare model's rows differ, if there is no valid."""
Rows = dict[str, Values]
"""What metrics say of a split's rows."""


def role(split: str) -> str:
    """Whether a split's rows are like the training rows: only ``test`` is."""
    return IN if split in (TEST, VALID, TRAIN) else SHIFTED


def measured(
    stage: Stage, split: str, folder: Path, title: str, reporter: Reporter
) -> Rows:
    """What metrics say of every row, by the model as it is.

    It is kept in ``folder``, with the answers, if a metric had some written.
    """
    asked = asdict(stage.resolved.config.evaluation)
    key = {
        "metrics": list(stage.gauges),
        "sha256": sorted(stage.splits.files[split].values()),
        **{name: asked[name] for name in ("max_tokens", "samples", "temperature")},
    }
    place = folder / f"{split}.json"
    if place.exists():
        held = json.loads(place.read_text(encoding="utf-8"))
        if held["of"] == key:
            sealing.add(RunDir(folder.parent), "scores", [place])
            return {name: Values(**values) for name, values in held["rows"].items()}
    found = measured_now(stage, split, title, reporter)
    rows = {name: found.values[name] for name in stage.gauges}
    held = {name: asdict(values) for name, values in rows.items()}
    answers = [answer.text for answer in found.written]
    files.write_json(place, {"of": key, "rows": held, "answers": answers})
    sealing.add(RunDir(folder.parent), "scores", [place])
    return rows


def measured_now(stage: Stage, split: str, title: str, reporter: Reporter) -> Measured:
    """The same, and nothing is kept."""
    rows = stage.splits.rows[split]
    rows = rows[:SAMPLE] if split == TRAIN else rows
    stage.loaded.model.eval()
    with reporter.task(f"{title} on {split}", len(rows)) as advance:
        return evaluation.measure(
            stage.split,
            stage.loaded.tokenizer,
            rows,
            stage.gauges,
            stage.resolved.config.evaluation.max_tokens,
            advance,
            stage.trunk,
        )


def measure_all(
    stage: Stage, runs: Sequence[Run], reporter: Reporter
) -> dict[str, Measurements]:
    """Every run and the bare model on every test split, the shifted ones last."""
    reached: dict[str, dict[str, dict[str, list[Values]]]] = {}
    for split in sorted(stage.tests, key=lambda name: role(name) == SHIFTED):
        stage.begin(stage.seeds[0])
        _note(reached, BASE, split, base(stage, split, reporter))
        for run in runs:
            arms.restore(stage, run)
            title = f"score {run.arm}, seed {run.seed},"
            scores = measured(stage, split, run.path / "scores", title, reporter)
            _note(reached, run.arm, split, scores)
    return dict(reached)


def base(stage: Stage, split: str, reporter: Reporter) -> Rows:
    """The bare model's rows; the model has to be at a seed's beginning."""
    return measured(stage, split, stage.out / BASE, "score the bare model", reporter)


def _note(
    reached: dict[str, dict[str, dict[str, list[Values]]]],
    arm: str,
    split: str,
    scores: Rows,
) -> None:
    of_split = reached.setdefault(arm, {}).setdefault(split, {})
    for metric, values in scores.items():
        of_split.setdefault(metric, []).append(values)
