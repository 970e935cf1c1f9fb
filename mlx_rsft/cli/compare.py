"""``mlx-rsft compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "compare",
    epilog="Example: mlx-rsft compare --model demo --data runs/demo/data --arm sft "
    "--arm dft:floor=0.1 --seeds 3 --steps 60 --out runs/compared",
)
@click.option(
    "--arm",
    "arms",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="An objective to train; may be repeated; see mlx-rsft objectives.  (required)",
)
@click.option(
    "--baseline",
    metavar="ARM",
    default="",
    help="The arm that the others are held against.  [default: sft, else the first]",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Trainings of each arm, with seeds from --seed on.",
)
@click.option(
    "--tune-rate",
    is_flag=True,
    help="Let each arm choose among a third, one and three times the learning rate, on "
    "the split valid and nothing else.",
)
@click.option(
    "--curve-every",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Look at the split valid so often.  [default: four times a run]",
)
@options.setting_flags(
    *options.TRAINING,
    "evaluation.metrics",
    "evaluation.splits",
    "evaluation.max_tokens",
    "evaluation.side_effects",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for runs and results; the same command goes on with it.  (required)",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Hold objectives against each other on your data.

    Trains every arm from every seed, all from the same initial adapters, with the same
    rows in the same order and the same number of steps, then scores them on every test
    split, the shifted ones last. The first of --metrics decides, exact_match unless
    told otherwise. What so many rows can show is said, and written to DIR/plan.json,
    before anything is trained.
    """
    from mlx_rsft.workflows.compare import Request, compare

    settings = options.resolved(config_file, assignments)
    if out is None:
        raise ConfigError("No folder is given.", hint="Pass --out DIR.")
    request = Request(
        arms=asked["arms"],
        out=out,
        seeds=asked["seeds"],
        baseline=asked["baseline"],
        tune_rate=asked["tune_rate"],
        every=asked["curve_every"] or 0,
    )
    record = compare(settings, request, console.TerminalReporter())
    if as_json:
        console.emit_json(record)
    else:
        _show(record, out)


def _show(record: Mapping[str, Any], out: Path) -> None:
    decides = record["method"]["decides"]
    splits = list(record["splits"])
    console.emit(f"{decides}, mean over seeds {record['seeds']}")
    console.table(
        ["arm", *splits, "s", "J", "peak MB"],
        [_arm(arm, splits, decides) for arm in record["arms"]],
    )
    console.emit("")
    console.emit(f"difference from {record['baseline']}, 95 % interval")
    console.table(
        ["arm", "split", "metric", "difference", "interval", "p", "corrected"],
        [_difference(found) for found in record["differences"]],
    )
    console.emit("")
    console.emit(f"{record['verdict']}: {record['reason']}")
    for limit in record["limits"]:
        console.emit(f"limit: {limit}")
    console.emit(f"all of it: {out / 'comparison.json'}")


def _arm(arm: Mapping[str, Any], splits: list[str], decides: str) -> list[str]:
    metrics = [arm["splits"][split]["metrics"][decides] for split in splits]
    cost = arm["cost"]
    name = f"{arm['name']} (diverged)" if arm["diverged"] else arm["name"]
    shown = ["", "", ""]
    if cost:
        joules = "-" if cost["joules"] is None else f"{cost['joules']:.0f}"
        shown = [f"{cost['seconds']:.0f}", joules, f"{cost['peak_bytes'] / 1e6:.0f}"]
    return [name, *(_amount(m["value"], m["unit"]) for m in metrics), *shown]


def _difference(found: Mapping[str, Any]) -> list[str]:
    unit = found["unit"]
    return [
        found["arm"],
        found["split"],
        found["metric"],
        _amount(found["difference"], unit, "+"),
        f"{_amount(found['low'], unit, '+')} to {_amount(found['high'], unit, '+')}",
        _p(found["p_value"]),
        _p(found["p_adjusted"]),
    ]


def _amount(value: float | None, unit: str, sign: str = "") -> str:
    """Fractions as percent, or as percentage points where they are differences."""
    if value is None:
        return "unknown"
    return f"{100 * value:{sign}.1f}" if unit == "fraction" else f"{value:{sign}.3f}"


def _p(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
