"""``mlx-rsft search``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "search",
    epilog="Example: mlx-rsft search --model demo --data runs/demo/data --steps 60 "
    "--out runs/searched && mlx-rsft train --profile runs/searched/profile.toml --model "
    "demo --data runs/demo/data --steps 60 --run-dir runs/chosen",
)
@click.option(
    "--arm",
    "arms",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="An objective to try; may be repeated.  [default: nine, of sft, power and dft]",
)
@click.option(
    "--learning-rates",
    metavar="RATE,...",
    help="Try each objective at these.  [default: a third, one and three times "
    "--learning-rate]",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help="Most trials, drawn from the grid by --seed.  [default: all of it]",
)
@click.option(
    "--eta",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="At each rung one trial in so many goes on, for so many times the steps.",
)
@click.option(
    "--kl-budget",
    type=click.FloatRange(min=0),
    help="Most divergence from the base on bundled general prompts, nats per token.  "
    "[default: 2]",
)
@click.option(
    "--per-tag",
    is_flag=True,
    help="Search for each tag of the training rows: the objective on its rows alone, "
    "plain SFT on the others.",
)
@options.setting_flags(*options.TRAINING, "evaluation.metrics", "evaluation.max_tokens")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for trials and profile; the same command goes on with it.  (required)",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Load and check all, say what it costs, write nothing.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Find the settings that hold up where conditions have shifted.

    Trains every objective at every learning rate briefly, the best third of them three
    times as long, and so on up to --steps. What counts is the worst of the splits valid
    and valid_NAME, by the first of --metrics (exact_match, equals by token_accuracy);
    whatever moves the model further than --kl-budget is out. Test splits are never
    opened. DIR/profile.toml holds what was chosen, for train --profile. Exit code 3 if
    no trial stays within the budget.
    """
    from mlx_rsft.workflows import search, trials

    settings = options.resolved(config_file, assignments)
    if out is None:
        raise ConfigError("No folder is given.", hint="Pass --out DIR.")
    rates = asked["learning_rates"]
    budget = asked["kl_budget"]
    request = search.Request(
        out=out,
        arms=asked["arms"],
        rates=trials.read_rates(rates) if rates else (),
        most=asked["trials"] or 0,
        eta=asked["eta"],
        kl_budget=search.KL_BUDGET if budget is None else budget,
        per_tag=asked["per_tag"],
    )
    reporter = console.TerminalReporter()
    found = search.prepare(settings, request, reporter)
    cost = _cost(found.plan)
    if dry_run:
        _show_plan(found.plan, cost, as_json=as_json)
        return
    reporter.note(f"{cost}; plan in {out}.")
    record = search.search(found, reporter)
    if as_json:
        console.emit_json(record)
    else:
        _show(record, out)


def _cost(plan: Mapping[str, Any]) -> str:
    cost = plan["cost"]
    return (
        f"{cost['runs']} runs, {cost['steps']} steps of {cost['seconds_per_step']:.2f} s, "
        f"about {cost['seconds'] / 60:.1f} min with scoring"
    )


def _show_plan(plan: Mapping[str, Any], cost: str, *, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan)
        return
    for each in plan["plans"]:
        _title(each["tag"])
        rows = [
            [str(number), str(rung["trials"]), str(rung["steps"])]
            for number, rung in enumerate(each["rungs"], start=1)
        ]
        console.table(["rung", "trials", "steps"], rows)
        console.emit(f"trials: {'; '.join(each['trials'])}")
    console.emit(cost)


def _show(record: Mapping[str, Any], out: Path) -> None:
    decides, splits = record["metrics"][0], list(record["splits"])
    base = ", ".join(
        f"{split} {_amount(found[decides])}" for split, found in record["base"].items()
    )
    console.emit(f"{decides} on each split; the bare model: {base}")
    for each in record["searches"]:
        _title(each["tag"])
        head = ["trial", "steps", *splits, "worst", "KL", ""]
        console.table(
            head, [_trial(trial, splits, decides) for trial in each["trials"]]
        )
        console.emit(f"chosen: {each['chosen']}")
        console.emit(f"profile: {out / each['profile']}")
    for limit in record["limits"]:
        console.emit(f"limit: {limit}")
    console.emit(f"all of it: {out / 'search.json'}")


def _title(tag: str | None) -> None:
    if tag:
        console.emit(f"rows with the tag {tag}:")


def _trial(trial: Mapping[str, Any], splits: list[str], decides: str) -> list[str]:
    """A line of the table: the longest run of a trial."""
    last = trial["rungs"][-1]
    unit = next(iter(last["splits"].values()))[decides]["unit"]
    worst = {"value": last["worst"][decides]["value"], "unit": unit}
    figures = [last["splits"].get(split) for split in splits]
    return [
        trial["name"],
        str(last["steps"]),
        *(_amount(found[decides]) if found else "-" for found in figures),
        _amount(worst),
        _kl(last["kl"]["value"]),
        trial["dropped"] or "chosen",
    ]


def _amount(metric: Mapping[str, Any]) -> str:
    """Fractions as percent."""
    value = metric["value"]
    if value is None:
        return "unknown"
    return f"{100 * value:.1f}" if metric["unit"] == "fraction" else f"{value:.3f}"


def _kl(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
