"""``mlx-rsft watch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed, ConfigError


@click.group("watch")
def command() -> None:
    """Ask the same frozen rows of every new adapter, and alarm when it got worse."""


@command.command(
    "freeze",
    epilog="Example: mlx-rsft watch freeze --data data --splits test,shifted "
    "--tolerance exact_match=0.03 --out watched",
)
@options.setting_flags(
    "data.source",
    "evaluation.splits",
    "evaluation.metrics",
    "evaluation.max_tokens",
    "evaluation.samples",
    "evaluation.temperature",
    *(name for name in options.READING if name != "data.template"),
    "data.max_length",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder of the suite, its history and its page.",
)
@click.option(
    "--tolerance",
    multiple=True,
    metavar="METRIC=LOSS",
    help="Loss that is no reason to alarm.  [default: 0.02 of a fraction, of others "
    "5 % of the reference; with one reference 0.05 and half of it]",
)
@click.option(
    "--limit",
    multiple=True,
    metavar="METRIC=VALUE",
    help="A value that must not be shown to be missed.",
)
@options.as_json
def freeze(
    config_file: Path | None,
    assignments: tuple[str, ...],
    out: Path,
    tolerance: tuple[str, ...],
    limit: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Freeze rows, metrics and tolerances into one sealed file.

    The rows are copied, so that later changes to the data change nothing. With no
    --metrics: exact_match and nll.
    """
    from mlx_rsft.workflows import suite

    settings = options.resolved(config_file, assignments)
    made = suite.freeze(
        settings,
        out,
        _numbers("--tolerance", tolerance),
        _numbers("--limit", limit),
    )
    rows = {name: len(held) for name, held in made.rows.items()}
    if as_json:
        console.emit_json({"suite": str(out), "rows": rows, "sha256": made.sha256})
        return
    told = ", ".join(f"{count} rows of {name}" for name, count in rows.items())
    console.emit(
        f"{out / suite.FILE}: {told}; {', '.join(made.metrics)}; {made.sha256}"
    )


def _numbers(flag: str, given: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(
                f"{text!r} sets no number.", where=flag, hint="Write METRIC=0.05."
            ) from None
    return found


@command.command(
    "score",
    epilog="Example: mlx-rsft watch score watched --model demo --adapter "
    "runs/new/adapter || echo worse",
)
@click.argument("suite", type=click.Path(path_type=Path), metavar="DIR")
@options.setting_flags(
    "model.source",
    "data.template",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.adapter
@click.option("--label", default="", help="What it is called on the page.")
@click.option(
    "--reference",
    "reference",
    flag_value="joins",
    default="",
    help="It is as it should be: later ones are compared with it too.",
)
@click.option(
    "--restart",
    "reference",
    flag_value="restarts",
    help="From here on later ones are compared with it, not with those before.",
)
@click.option("--again", is_flag=True, help="Measure what was measured before.")
@options.as_json
def score(
    config_file: Path | None,
    assignments: tuple[str, ...],
    suite: Path,
    adapter: Path | None,
    *,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Ask a suite of a model, and alarm by exit code 3 if it got worse.

    The first one is the reference. Worse means that the whole interval of the loss,
    over rows and, from two references on, over seeds, lies beyond the tolerance; over
    all that is watched, a false alarm has a chance of 2 %. DIR/history.jsonl gets a
    line, DIR/drift.html is drawn anew. When to run it is left to cron, launchd or CI:
    see configs/watch.* of the source.
    """
    from mlx_rsft.report.drift import worse
    from mlx_rsft.workflows import watch

    settings = options.resolved(config_file, assignments)
    request = watch.Request(adapter, **wanted)
    entry = watch.score(suite, settings, request, console.TerminalReporter())
    if as_json:
        console.emit_json(entry)
    else:
        rows = [
            [
                one["split"],
                one["metric"],
                *map(_shown, map(one.get, FIGURES)),
                one["outcome"],
            ]
            for one in entry["checks"]
        ]
        if rows:
            console.table(["split", "metric", *FIGURES, "outcome"], rows)
        for said in worse(entry):
            console.emit(said)
        console.emit(f"{entry['label']}: {entry['verdict']}; {suite / watch.PAGE}")
    if entry["verdict"] == watch.REGRESSION:
        raise click.exceptions.Exit(CheckFailed.exit_code)


FIGURES = ("value", "reference", "gain", "low", "high", "tolerance")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
