"""``mlx-rsft data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed

MOST_OF_A_KIND = 50
"""Findings of one kind that are printed."""


@click.group("data")
def command() -> None:
    """Work with data files."""


@command.command("check", epilog="Example: mlx-rsft data check data --model demo")
@click.argument("place", metavar="FILE_OR_FOLDER")
@options.setting_flags(
    *options.READING, "data.max_length", "data.overlong", "model.source"
)
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
        for line in _told(report):
            console.emit(line)
    if report["hurts"]:
        raise click.exceptions.Exit(CheckFailed.exit_code)


def _told(report: Mapping[str, Any]) -> Iterator[str]:
    """The report of a check, line by line; only the first findings of each kind."""
    shown: dict[str, int] = {}
    for item in report["findings"]:
        shown[item["kind"]] = shown.get(item["kind"], 0) + 1
        if shown[item["kind"]] <= MOST_OF_A_KIND:
            yield f"{item['where']}: {item['kind']}: {item['message']}"
    for kind, count in report["counts"].items():
        if count > MOST_OF_A_KIND:
            yield f"... and {count - MOST_OF_A_KIND} more of kind {kind}; --json has all"
    for name, split in report["splits"].items():
        told = {key: value for key, value in split.items() if key != "tags"}
        yield f"{name}: {_words(told)}"
        for tag, of_tag in split.get("tags", {}).items():
            yield f"  {tag}: {_words(of_tag)}"
    kinds = ": " + _words(report["counts"]) if report["counts"] else ""
    yield f"{len(report['findings'])} findings{kinds}"


def _words(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items())


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
    "split",
    epilog="Example: mlx-rsft data split cases.csv --out data --hold-out plant_b",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder for train.jsonl, valid.jsonl, test.jsonl and test_TAG.jsonl.",
)
@click.option(
    "--valid",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of the rows to watch training with.",
)
@click.option(
    "--test",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of the rows to judge the result with.",
)
@click.option("--group", metavar="COLUMN", help="Rows alike in it stay together.")
@click.option(
    "--hold-out",
    multiple=True,
    metavar="TAG",
    help="All rows of the tag become a test split of their own; may be repeated.",
)
@options.setting_flags("data.format", "data.map", "data.encoding", "seed")
@options.as_json
def split(
    config_file: Path | None,
    assignments: tuple[str, ...],
    file: Path,
    out: Path,
    *,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Cut one file into splits that share no question.

    Rows whose questions differ in capitals, punctuation or white space only stay
    together, and each tag is dealt out in proportion. With --hold-out you see later how
    training carries over to what it has not seen.
    """
    from mlx_rsft.workflows.split import split as run

    settings = options.resolved(config_file, assignments)
    written = run(
        settings,
        file.expanduser(),
        out.expanduser(),
        console.TerminalReporter(),
        shares={"valid": wanted["valid"], "test": wanted["test"]},
        group=wanted["group"],
        held_out=wanted["hold_out"],
    )
    if as_json:
        console.emit_json(written)
        return
    for name, told in written["splits"].items():
        tags = ", ".join(f"{tag} {rows}" for tag, rows in sorted(told["tags"].items()))
        console.emit(f"{told['rows']:7} rows  {out / name}  {tags}".rstrip())


@command.command(
    "fix",
    epilog="Example: mlx-rsft data fix data/train.jsonl --suspects suspects.csv --out "
    "fixed/train.jsonl",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--suspects",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.csv",
    help="What probe --suspects wrote, with the column corrected filled in.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.jsonl",
    help="New file.",
)
@options.setting_flags("data.map", "data.encoding")
@options.as_json
def fix(
    config_file: Path | None,
    assignments: tuple[str, ...],
    file: Path,
    suspects: Path,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Write a data file anew with answers corrected.

    Takes the answers from the column corrected; where that is empty the row stays as it
    is, where it is the word drop the row is left out.
    """
    from mlx_rsft.workflows.fix import fix as run

    settings = options.resolved(config_file, assignments)
    done = run(settings, file.expanduser(), suspects.expanduser(), out.expanduser())
    if as_json:
        console.emit_json(done)
        return
    console.emit(
        f"{done['rows']} rows in {out}: {done['corrected']} corrected, "
        f"{done['dropped']} left out"
    )


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

    FOLDER gets train.jsonl, three test splits, and three valid splits to choose by: test
    and valid (like the training rows), new_parts (parts never seen) and new_phrasings
    (the same said otherwise).
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
