"""``mlx-rsft eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options


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
    *options.READING,
    "data.max_length",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.adapter
@click.option("--by-tag", is_flag=True, help="Show the rows of each tag apart, too.")
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    *,
    by_tag: bool,
    as_json: bool,
) -> None:
    """Score a model, with or without an adapter.

    Prints each metric of each split with its 95 % interval. Perplexity comes from the
    true NLL, whatever the objective was. With no --metrics: nll, perplexity,
    token_accuracy and exact_match, from one pass. The others are listed by
    mlx-rsft metrics; JSON has every tag apart.
    """
    from mlx_rsft.workflows.evaluate import evaluate

    settings = options.resolved(config_file, assignments)
    record = evaluate(settings, adapter, console.TerminalReporter())
    if as_json:
        console.emit_json(record)
    else:
        _show(record, by_tag=by_tag)


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
