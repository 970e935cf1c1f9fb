"""``mlx-rsft eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "eval",
    epilog="Example: mlx-rsft eval --model demo --adapter runs/first/adapter --data "
    "runs/demo/data --splits test,new_parts",
)
@options.setting_flags(
    "model.source",
    "data.source",
    "evaluation.splits",
    "evaluation.metrics",
    "evaluation.max_tokens",
    "evaluation.samples",
    "evaluation.temperature",
    "evaluation.general",
    "evaluation.pairs",
    *options.READING,
    "data.max_length",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.adapter
@click.option("--by-tag", is_flag=True, help="Show the rows of each tag apart, too.")
@click.option(
    "--rater-sheet",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write answers of both models side by side, for people to judge blind; "
    "needs --against.",
)
@click.option(
    "--against",
    metavar="DIR",
    help="The other adapter on that sheet, or base for the bare model.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    *,
    by_tag: bool,
    rater_sheet: Path | None,
    against: str | None,
    as_json: bool,
) -> None:
    """Score a model, with or without an adapter.

    Prints each metric of each split with its 95 % interval. Perplexity comes from the
    true NLL, whatever the objective was. With no --metrics: nll, perplexity,
    token_accuracy and exact_match, from one pass. The others are listed by
    mlx-rsft metrics; JSON has every tag apart. A sheet that raters have filled in is
    read by mlx-rsft ratings.
    """
    from mlx_rsft.workflows.evaluate import evaluate

    settings = options.resolved(config_file, assignments)
    idle = rater_sheet is None and settings.is_given("evaluation.pairs")
    if (rater_sheet is None) != (against is None) or idle:
        raise ConfigError(
            "A sheet needs a folder and another model.",
            where="--rater-sheet",
            hint="Write it like --rater-sheet blind --against base; --pairs goes with it.",
        )
    reporter = console.TerminalReporter()
    sheet: dict[str, Any] = {}
    if rater_sheet and against:  # first, because it may be refused at once
        from mlx_rsft.workflows import rating

        made = rating.write(settings, adapter, against, rater_sheet, reporter)
        sheet = {"rater_sheet": made}
    record = evaluate(settings, adapter, reporter) | sheet
    if as_json:
        console.emit_json(record)
    else:
        _show(record, by_tag=by_tag)
        if "rater_sheet" in record:
            sheet = record["rater_sheet"]
            console.emit(
                f"{sheet['pairs']} pairs to judge in {sheet['sheet']} and {sheet['page']}; "
                f"keep {sheet['key']} from the raters"
            )


def _show(record: dict[str, Any], *, by_tag: bool) -> None:
    parts = dict[str, Any]()
    for split, measured in record["splits"].items():
        parts[split] = measured
        for tag, part in measured.get("tags", {}).items() if by_tag else ():
            parts[f"{split}, {tag}"] = part
    rows = [
        [name, metric, f"{m['value']:.4g}", _interval(m), m["unit"], str(m["n"])]
        for name, part in parts.items()
        for metric, m in part["metrics"].items()
    ]
    console.table(["split", "metric", "value", "95 % interval", "unit", "rows"], rows)


def _interval(metric: dict[str, Any]) -> str:
    return f"{metric['low']:.4g} to {metric['high']:.4g}"
