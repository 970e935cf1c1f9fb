"""``mlx-rsft audit``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed
from mlx_rsft.report.tokens import visible

RUN = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")


@click.group("audit")
def command() -> None:
    """Look into a run, long after: its story, its soundness, its repetition."""


@command.command("show", epilog="Example: mlx-rsft audit show runs/first")
@RUN
@options.as_json
def show(run: Path, *, as_json: bool) -> None:
    """Tell the story of a run: what was trained on what, by which code, where.

    Ends with the seal of its log. Note that elsewhere: with it, audit verify --seal
    shows that nobody has written the whole folder anew.
    """
    from mlx_rsft.workflows import story

    record = story.read(run)
    if as_json:
        console.emit_json(record)
        return
    for line in story.told(record):
        console.emit(line)


@command.command("verify", epilog="Example: mlx-rsft audit verify runs/first")
@RUN
@click.option("--seal", default="", help="A seal of its log that was noted elsewhere.")
@options.as_json
def verify(run: Path, seal: str, *, as_json: bool) -> None:
    """Say exactly what in a run is not as it was written; exit code 3 if anything.

    Every file is held against the log, whose lines are chained by hashes. A run that
    was cut off is checked up to its last checkpoint, and what no seal covers is said.
    """
    from mlx_rsft.workflows import audit

    found = audit.verify(run, seal)
    if as_json:
        console.emit_json(found.as_record())
    else:
        for one in found.findings:
            console.emit(f"{one.file}: {one.what}: {one.detail}")
        for part in found.open:
            console.emit(f"{part}: not sealed yet")
        sound = (
            f"{len(found.findings)} of {found.files} sealed files are not as written"
        )
        console.emit(
            f"{sound if found.findings else f'all {found.files} sealed files are as written'}"
            f"; {found.state}; seal {found.seal}"
        )
    if found.findings:
        raise click.exceptions.Exit(CheckFailed.exit_code)


@command.command(
    "rerun", epilog="Example: mlx-rsft audit rerun runs/first --out runs/again"
)
@RUN
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder for the repetition.",
)
@click.option("--model", default="", help="Where the model is now, if it has moved.")
@click.option("--data", default="", help="Where the data are now, if they have moved.")
@options.as_json
def rerun(run: Path, out: Path, model: str, data: str, *, as_json: bool) -> None:
    """Train a run again from its own files, and compare; exit code 3 if it differs.

    On the same kind of machine, with the same versions, the adapter has the same bytes.
    Elsewhere what differs is named, and the figures have to lie within the run's own
    95 % intervals.
    """
    from mlx_rsft.workflows.rerun import rerun as repeat

    moved = {"model.source": model, "data.source": data}
    given = {name: value for name, value in moved.items() if value}
    found = repeat(run, out, given, console.TerminalReporter())
    if as_json:
        console.emit_json(found.as_record())
    else:
        for one in found.differs:
            console.emit(one)
        for figure in () if found.same_bytes else found.figures:
            console.emit(
                f"{figure.split} {figure.metric}: was {figure.was:.4g}, now "
                f"{figure.now:.4g}, allowed {figure.low:.4g} to {figure.high:.4g}"
            )
        bytes_ = "the same bytes" if found.same_bytes else "other bytes"
        console.emit(f"{bytes_}: {found.adapter}")
    if not found.repeats:
        raise click.exceptions.Exit(CheckFailed.exit_code)


@command.command(
    "explain", epilog="Example: mlx-rsft audit explain runs/first --row train-0017"
)
@RUN
@click.option("--row", default="", metavar="ID", help="One row, by id or file:line.")
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Rows to show of those damped most, and of those damped least.",
)
@click.option("--data", default="", help="Where the data are now, if they have moved.")
@options.as_json
def explain(run: Path, row: str, most: int, data: str, *, as_json: bool) -> None:
    """Say which demonstrations the objective damped, and what gave the gradient.

    Weights are means over training, 1 is plain SFT. The share of the gradient is the
    sum of weight (1 - p) over a row's tokens, an anchor left out. Texts are read from
    your data, on this machine; nothing is written.
    """
    from mlx_rsft.workflows.explaining import explain as look

    found = look(run, data)
    record = found.one(row) if row else found.as_record(most)
    if as_json:
        console.emit_json(record)
    elif row:
        _show_row(record)
    else:
        _show_rows(record)


def _show_rows(record: Mapping[str, Any]) -> None:
    console.emit(f"{record['rows']} rows, mean weight {record['mean_weight']:.3f}")
    console.table(
        ["tag", "rows", "mean weight", "gradient"],
        [
            [tag, str(t["rows"]), f"{t['mean_weight']:.3f}", f"{t['gradient']:.1%}"]
            for tag, t in record["tags"].items()
        ],
    )
    for name in ("most_damped", "least_damped"):
        console.emit(f"\n{name.replace('_', ' ')}:")
        for row in record[name]:
            console.emit(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    name = row.get("id") or row["where"]
    said = f"{row['mean_weight']:.3f}  {name}  p {row['first_p']:.2f} to {row['last_p']:.2f}"
    if "answer" not in row:
        return f"{said}  (the data hold another row there now)"
    tags = f" [{', '.join(row['tags'])}]" if row["tags"] else ""
    return f"{said}{tags}\n       {visible(row['asked'])}\n       -> {visible(row['answer'])}"


def _show_row(row: Mapping[str, Any]) -> None:
    console.emit(_line(row))
    console.emit(
        f"rank {row['rank']} of {row['of']} from the most damped, "
        f"{row['gradient']:.2%} of the gradient"
    )
    console.table(
        ["step", "weight", "p"],
        [[str(s["step"]), f"{s['weight']:.3f}", f"{s['p']:.3f}"] for s in row["steps"]],
    )
    if proof := row.get("proof"):
        console.emit(
            f"rows.jsonl holds {proof['sha256']}: the SHA-256 of salt {proof['salt']} "
            f"and row {proof['row']}"
        )
