"""``mlx-rsft data``."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed


@click.group("data")
def command() -> None:
    """Work with data files."""


@command.command("check", epilog="Example: mlx-rsft data check data --model demo")
@click.argument("place", metavar="FILE_OR_FOLDER")
@options.setting_flags(*options.READING, "data.max_length", "model.source")
@options.as_json
def check(
    config_file: Path | None, assignments: tuple[str, ...], place: str, *, as_json: bool
) -> None:
    """Report every problem of data files at once.

    Malformed rows, repeats, contradicting answers, and questions of the training rows
    that are in a test split too. With --model also rows that are too long or do not fit
    its chat template, and token counts. Exit code 3 if something would silently hurt.
    """
    from mlx_rsft.workflows.check import check as run

    settings = options.resolved(config_file, assignments)
    report = run(settings, Path(place), console.TerminalReporter())
    if as_json:
        console.emit_json(report)
    else:
        for item in report["findings"]:
            console.emit(f"{item['where']}: {item['kind']}: {item['message']}")
        for name, split in report["splits"].items():
            words = ", ".join(f"{key} {value}" for key, value in split.items())
            console.emit(f"{name}: {words}")
        console.emit(f"{len(report['findings'])} findings {report['counts'] or ''}")
    if report["hurts"]:
        raise click.exceptions.Exit(CheckFailed.exit_code)


@command.command("show", epilog="Example: mlx-rsft data show data.jsonl --model demo")
@click.argument("file", type=click.Path(path_type=Path))
@options.setting_flags("model.source", *options.READING)
@click.option(
    "--row",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Which row, counted from 1.",
)
@click.option("--ids", is_flag=True, help="Write each token's id behind it.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write it as one HTML page.",
)
@options.as_json
def show(
    config_file: Path | None,
    assignments: tuple[str, ...],
    file: Path,
    row: int,
    *,
    ids: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show the tokens of one row; those that are trained stand on colour.

    Where there is no colour, trained tokens stand between [ and ]. A row becomes more
    than one example where the chat template rewrites earlier turns.
    """
    from mlx_rsft.workflows.check import save_page
    from mlx_rsft.workflows.check import show as run

    settings = options.resolved(config_file, assignments)
    reporter = console.TerminalReporter()
    shown = run(settings, file, row, reporter)
    if html is not None:
        save_page(shown, html, ids=ids)
        reporter.note(f"written to {html}")
    if as_json:
        console.emit_json(shown)
        return
    examples = shown["examples"]
    for number, example in enumerate(examples, start=1):
        if len(examples) > 1:
            console.emit(f"Example {number} of {len(examples)}:")
        console.tokens(example["tokens"], ids=ids)


@command.command(
    "demo", epilog="Example: mlx-rsft data demo runs/demo/data --wrong-labels 0.3"
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--train-rows",
    type=click.IntRange(min=1),
    default=320,
    show_default=True,
    help="Rows to train on.",
)
@click.option(
    "--test-rows",
    type=click.IntRange(min=1),
    default=96,
    show_default=True,
    help="Rows in each of the three test splits.",
)
@click.option(
    "--wrong-labels",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of training answers that are wrong on purpose.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which rows.")
@options.as_json
def demo(
    folder: Path,
    train_rows: int,
    test_rows: int,
    wrong_labels: float,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Write demo data: shop-floor notes and what to do about them.

    FOLDER gets train.jsonl, valid.jsonl and three test splits: test (like the training
    rows), new_parts (parts never seen) and new_phrasings (the same said otherwise).
    """
    from mlx_rsft.data.demo import write_demo

    written = write_demo(
        folder,
        train_rows=train_rows,
        test_rows=test_rows,
        wrong_labels=wrong_labels,
        seed=seed,
    )
    if as_json:
        console.emit_json({"folder": str(folder), "rows": written})
        return
    for name, rows in written.items():
        console.emit(f"{rows:5} rows  {folder / name}")
