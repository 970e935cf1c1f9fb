"""What a comparison states before it knows anything: ``plan.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_rsft import files, manifest, stats
from mlx_rsft.evaluation import Gauge, differences, verdict
from mlx_rsft.records import finite
from mlx_rsft.workflows import scored, standings
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.scored import Rows


def plan(stage: Stage, known_rows: Rows, known: str, *, tuned: bool) -> dict[str, Any]:
    """What is going to be compared, and what that can show; on disk when it returns.

    Args:
        stage: The comparison.
        known_rows: The bare model's values of a split that it may be known on.
        known: The name of that split.
        tuned: Whether arms choose their learning rates.
    """
    assumed = {
        metric: differences.expected_spread(gauge, known_rows[metric])
        for metric, gauge in stage.gauges.items()
    }
    made: dict[str, Any] = {
        "arms": list(stage.arms),
        "baseline": stage.baseline,
        "seeds": list(stage.seeds),
        "steps": stage.num_steps,
        "decides": stage.decisive,
        "splits": {name: _expected(stage, name, assumed) for name in stage.tests},
        "method": _method(stage.gauges, known, tuned=tuned),
    }
    made = json.loads(json.dumps(finite(made)))
    file = stage.out / "plan.json"
    if file.exists():
        held = json.loads(file.read_text(encoding="utf-8"))
        earlier = held.pop("earlier", [])
        if {**held, "created": None} == {**made, "created": None}:
            return {**held, "earlier": earlier}
        made["earlier"] = [*earlier, held]
    made["created"] = manifest.now()
    files.write_json(file, made)
    return made


def _method(gauges: Mapping[str, Gauge], known: str, *, tuned: bool) -> dict[str, Any]:
    rates = "on valid, from a grid that is the same for all arms"
    return {
        "pairs": "same rows, same initial adapter and same order per seed",
        "interval": "95 %, bootstrap over rows, spread of seeds estimated",
        "bootstrap": stats.DRAWS,
        "exact": "McNemar where one seed was trained and rows are right or wrong",
        "correction": "Holm over arms and splits, for each metric",
        "decides": next(iter(gauges)),
        "detectable": "two-sided 5 %, power 80 %, one comparison; models assumed to "
        f"disagree on {differences.DISAGREE:.0%} of rows, other metrics to differ as the "
        f"bare model's {known} rows do",
        "margin": verdict.MARGIN,
        "checkpoint": "the last step of every run",
        "tuned": tuned,
        "learning_rate": rates if tuned else "given, the same for all arms",
        "order": "test splits were read after all training, the shifted ones last",
    }


def _expected(stage: Stage, split: str, assumed: Mapping[str, float]) -> Any:
    """What the plan says of a split, before any model has read it."""
    rows = len(stage.splits.rows[split])
    return {
        "rows": rows,
        "tokens": standings.supervised(stage, split),
        "role": scored.role(split),
        "detectable": {
            metric: stats.detectable(spread, rows) for metric, spread in assumed.items()
        },
    }


def announce(stage: Stage, plan: Mapping[str, Any], reporter: Reporter) -> None:
    """Say it."""
    runs = len(stage.arms) * len(stage.seeds)
    reporter.note(f"{runs} runs of {stage.num_steps} steps; plan in {stage.out}.")
    unit = stage.gauges[stage.decisive].entry.unit
    for name, told in plan["splits"].items():
        size = told["detectable"][stage.decisive]
        shown = (
            f"{100 * size:.1f} points" if unit == verdict.FRACTION else f"{size:.3g}"
        )
        reporter.note(
            f"{name}, {told['rows']} rows: a difference of {shown} in {stage.decisive} "
            "is likely to be found, a smaller one is not."
        )
