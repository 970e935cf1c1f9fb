"""``mlx-rsft pilot``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed, Interrupted

OUT = Path("runs/pilot")
MINUTES = 10.0


@click.command(
    "pilot",
    epilog="Example: mlx-rsft pilot   Or: mlx-rsft pilot --model "
    "mlx-community/SmolLM2-360M-Instruct --data data --minutes 30 --out runs/pilot",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=MINUTES,
    show_default=True,
    help="For the whole; arms, seeds and steps are chosen to fit.",
)
@click.option(
    "--arm",
    "arms",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="An objective to try; may be repeated, dropped from the last one where time is "
    "short.  [default: sft, what the probe recommends, dft:floor=0.1]",
)
@click.option(
    "--to",
    "targets",
    metavar="TARGET,...",
    default="mlx,peft",
    show_default=True,
    help="Forms in which the winner is exported; see mlx-rsft export.",
)
@click.option(
    "--lang",
    type=click.Choice(["en", "ja"]),
    default="en",
    show_default=True,
    help="Language of the page.",
)
@options.setting_flags(
    *options.TRAINING,
    "evaluation.metrics",
    "evaluation.max_tokens",
    "evaluation.side_effects",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=OUT,
    show_default=True,
    metavar="DIR",
    help="Folder for all of it; the same command goes on with it.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    out: Path,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Find out whether reward rectification pays on your data, and what to do.

    Checks the rows, probes the bare model, measures a step, fits arms, seeds and steps
    into the minutes, trains and compares them, writes a page, and exports the winner,
    read back. Ends with go, no-go or not enough data, and commands to type next. Without
    --model and --data it runs on the demo: 320 notes, three in ten of their answers
    wrong. Exit code 0 for go, 3 for the others and for an export that differs.
    """
    from mlx_rsft.workflows.pilot import Request, pilot

    settings = options.resolved(config_file, assignments)
    targets = [name.strip() for name in asked["targets"].split(",") if name.strip()]
    request = Request(out, asked["minutes"], asked["arms"], targets, asked["lang"])
    try:
        record = pilot(settings, request, console.TerminalReporter())
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped; what is done is kept in {out}.",
            hint="The same command goes on.",
        ) from None
    program = _program()
    if as_json:
        console.emit_json(record | {"next": _typed(record, program)})
    else:
        _show(record, program, out)
    if record["verdict"] != "go" or not record["exported"]:
        raise click.exceptions.Exit(CheckFailed.exit_code)


def _program() -> list[str]:
    """How to call the program again from here."""
    if shutil.which("mlx-rsft"):
        return ["mlx-rsft"]
    beside = Path(sys.executable).with_name("mlx-rsft")
    if beside.exists():
        here = Path.cwd()
        inside = beside.is_relative_to(here)
        return [str(beside.relative_to(here) if inside else beside)]
    return [sys.executable, "-m", "mlx_rsft"]


def _typed(record: Mapping[str, Any], program: list[str]) -> list[dict[str, str]]:
    """The next steps, as one would type them."""
    return [
        {"why": step["why"], "command": shlex.join([*program, *step["arguments"]])}
        for step in record["next"]
    ]


def _show(record: Mapping[str, Any], program: list[str], out: Path) -> None:
    from mlx_rsft.report import pilot as words

    console.emit(words.headline(record))
    console.emit("")
    for line in words.for_managers(record):
        console.emit(f"  {line}")
    console.emit("\nIn numbers")
    for line in words.for_engineers(record):
        console.emit(f"  {line}")
    console.emit(f"\nPage: {record['page']}")
    console.emit(f"Winner: {out / 'export'}")
    console.emit(f"All of it: {out / 'pilot.json'}")
    console.emit("\nNext")
    for step in _typed(record, program):
        console.emit(f"  {step['why']}\n    {step['command']}")
