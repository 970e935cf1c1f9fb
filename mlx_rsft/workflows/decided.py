"""What a comparison decides for a pilot: the winner, what it brings, what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import stats
from mlx_rsft.config import Resolved
from mlx_rsft.evaluation import differences, verdict
from mlx_rsft.evaluation.differences import Contrast, Measurements
from mlx_rsft.evaluation.values import Values
from mlx_rsft.evaluation.verdict import FRACTION, MARGIN
from mlx_rsft.records import finite
from mlx_rsft.workflows import arms, assemble, compare, scored
from mlx_rsft.workflows.scored import BASE, SHIFTED


@dataclass(frozen=True, slots=True)
class Missing:
    """How many rows of a split would likely decide, were what was seen the truth.

    Attributes:
        towards: The verdict that they would lead to.
        more: Beyond those that are there; 0: seeds are missing, not rows.
    """

    split: str
    arm: str
    rows: int
    needed: int
    more: int
    towards: str


def winner(found: Mapping[str, Any]) -> str:
    """The arm to take: the one that is shown to be better, else the baseline."""
    return found["recommended"] or found["baseline"]


def run_of(found: Mapping[str, Any], compared: Path) -> Path:
    """The winner's run from the first seed; the best seed would be picked by tests."""
    name = arms.run_name(winner(found), found["seeds"][0])
    return compared / "runs" / name


def missing(found: Mapping[str, Any]) -> Missing | None:
    """What an open verdict lacks; None for one that is not open, or has no figures.

    A gain that is worth a change would be shown by enough rows of its split; a smaller
    one would be ruled out by enough rows of every split that decides.
    """
    open_ones = _deciding(found) if found["verdict"] == verdict.UNDECIDED else []
    if not open_ones:
        return None
    best = max(open_ones, key=lambda contrast: contrast.gain)
    least = MARGIN if best.unit == FRACTION else 0.0
    if best.gain > least:
        needed, towards = stats.rows_needed(best.gain, _spread(best)), verdict.GO
    elif best.unit == FRACTION:
        towards = verdict.NO_GO
        needed, best = max(
            (
                (stats.rows_to_rule_out(c.gain, _spread(c), MARGIN), c)
                for c in open_ones
                if c.gain < MARGIN
            ),
            key=lambda pair: pair[0] / pair[1].n,
            default=(best.n, best),
        )
    else:
        return None
    more = max(0, needed - best.n)
    return Missing(best.split, best.arm, best.n, needed, more, towards)


def _spread(contrast: Contrast) -> float:
    """Over rows, and never none: rows that all agree prove little, see ``stats``."""
    grain = contrast.n**-0.5 if contrast.unit == FRACTION else 0.0
    return (contrast.spread**2 + grain**2) ** 0.5


def _deciding(found: Mapping[str, Any]) -> list[Contrast]:
    """The differences a verdict hangs on, as far as their intervals are known."""
    decides = found["method"]["decides"]
    known = [
        Contrast(**record)
        for record in found["differences"]
        if record["metric"] == decides and None not in record.values()
    ]
    shifted = [c for c in known if found["splits"][c.split]["role"] == SHIFTED]
    return shifted or known


def gained(
    resolved: Resolved, found: Mapping[str, Any], compared: Path
) -> list[dict[str, Any]]:
    """The winner against the bare model, split by split, by the metric that decides."""
    name, seeds = winner(found), found["seeds"]
    decides = found["method"]["decides"]
    config = compare.with_metrics(resolved).config
    gauges = {decides: assemble.metrics(config)[decides]}
    runs = [compared / "runs" / arms.run_name(name, s) / "scores" for s in seeds]
    reached: dict[str, Measurements] = {
        name: _read(found["splits"], decides, runs),
        BASE: _read(found["splits"], decides, [compared / BASE] * len(seeds)),
    }
    contrasts = differences.differences(reached, BASE, gauges, _unstated, seeds[0])
    return [
        {key: finite(value) for key, value in contrast.as_record().items()}
        for contrast in contrasts
    ]


def _unstated(split: str, metric: str) -> float:
    """Nobody said before what this comparison would find."""
    del split, metric
    return math.nan


def _read(
    splits: Mapping[str, Any], metric: str, folders: Sequence[Path]
) -> dict[str, dict[str, list[Values]]]:
    """The values of a metric, from each folder with scores."""
    found: dict[str, dict[str, list[Values]]] = {}
    for split in sorted(splits, key=lambda name: scored.role(name) == SHIFTED):
        held = [
            json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
            for folder in folders
        ]
        found[split] = {metric: [Values(**one["rows"][metric]) for one in held]}
    return found
