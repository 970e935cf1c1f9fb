"""``mlx-rsft doctor``."""

from __future__ import annotations

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed

SIGNS = {"fine": "ok  ", "note": "note", "problem": "FIX "}


@click.command("doctor", epilog="Example: mlx-rsft doctor --model demo")
@click.option(
    "--model",
    default="",
    metavar="MODEL",
    help="Look for known traps of this model too; nothing is fetched from the Hub.",
)
@click.option(
    "--online",
    is_flag=True,
    help="Try whether the Hub can be reached; else ask nobody.",
)
@options.as_json
def command(model: str, *, online: bool, as_json: bool) -> None:
    """Say what is wrong with this machine or a model, and what to do.

    The exit code is 3 if something is to be acted on, and 0 if all is fine or merely
    to be known.
    """
    from mlx_rsft.workflows.doctor import examine

    found = examine(model, online=online)
    if as_json:
        console.emit_json(found.as_record())
    else:
        for finding in found.findings:
            console.emit(f"{SIGNS[finding.level]}  {finding.topic}: {finding.message}")
            if finding.remedy:
                console.emit(f"      -> {finding.remedy}")
    if found.problems:
        raise click.exceptions.Exit(CheckFailed.exit_code)
