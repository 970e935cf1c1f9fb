"""``mlx-rsft metrics``."""

from __future__ import annotations

from typing import Any

import click

from mlx_rsft.cli import console, options


@click.command(
    "metrics",
    epilog="Example: mlx-rsft eval --model demo --data runs/demo/data --metrics "
    "nll,numeric:tolerance=0.01,pass_at_k:k=4 --samples 8",
)
@options.as_json
def command(*, as_json: bool) -> None:
    """List what eval can measure.

    Parameters follow the name, as in numeric:tolerance=0.01,take=first. A metric of
    your own is module:function, a function of an answer and its row that returns a
    number. A comma in a pattern is written [,].
    """
    from mlx_rsft.evaluation import METRICS, parameters

    rows: dict[str, dict[str, Any]] = {
        name: {
            "unit": entry.unit,
            "better": entry.better,
            "about": entry.about,
            "parameters": parameters.describe(entry.factory),
            "by_name_only": bool(entry.needs),
        }
        for name, entry in METRICS.items()
    }
    if as_json:
        console.emit_json({"metrics": rows})
        return
    console.table(
        ["metric", "parameters", "unit", "better", "what it says"],
        [
            [
                name,
                ",".join(row["parameters"]),
                row["unit"],
                row["better"],
                row["about"],
            ]
            for name, row in rows.items()
        ],
        left=True,
    )
