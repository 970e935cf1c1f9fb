"""``mlx-rsft plan``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import CheckFailed
from mlx_rsft.memory import MACHINES

if TYPE_CHECKING:
    from mlx_rsft.workflows.plan import Plan

MIB = 1 << 20


@click.command(
    "plan",
    epilog="Example: mlx-rsft plan --model demo --data data --layers all --memory 8 "
    "--fit fits.toml",
)
@options.objective_flag
@options.profile_flag
@options.setting_flags(*options.TRAINING)
@click.option(
    "--memory",
    "memory_gib",
    type=click.Choice([str(size) for size in MACHINES]),
    help="Ask about a Mac with so many GB, of which mlx may hold two thirds to three "
    "quarters.  [default: this machine]",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Also run a real step here: gives times, and corrects the estimate.",
)
@click.option(
    "--fit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.toml",
    help="Write settings that fit, for train --config.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    memory_gib: str | None,
    fit: Path | None,
    *,
    measure: bool,
    as_json: bool,
) -> None:
    """Say whether a run fits, how long it takes, and what to change.

    Takes the settings of train, loads no weights, and computes nothing without
    --measure. Where a run does not fit, changes are tried in the order of the harm they
    do, and the exit code is 3, or 0 if --fit found settings that do. Without --data,
    rows of --max-length tokens are assumed.
    """
    from mlx_rsft.workflows.plan import plan

    settings = options.resolved(config_file, assignments)
    found = plan(
        settings,
        console.TerminalReporter(),
        memory_gib=int(memory_gib) if memory_gib else None,
        measure=measure,
    )
    if fit is not None:
        found.write_fit(fit)
    if as_json:
        console.emit_json(found.as_record())
    else:
        _show(found)
    if fit is not None:
        console.TerminalReporter().note(f"settings that fit: {fit}")
    elif not found.fits:
        raise click.exceptions.Exit(CheckFailed.exit_code)


def _show(found: Plan) -> None:
    record = found.as_record()
    peak = record["peak_bytes"]
    rows = [
        (name, f"{size / MIB:,.1f}", f"{size / peak:.0%}")
        for name, size in record["items"].items()
        if size
    ]
    console.table(["item", "MiB", "of the peak"], rows)
    for line in _told(found, record):
        console.emit(line)


def _told(found: Plan, record: dict[str, Any]) -> Iterator[str]:
    from mlx_rsft.workflows.plan import gib

    verdict = "fits" if found.fits else "does not fit"
    held, available = gib(record["peak_bytes"]), gib(record["available_bytes"])
    yield f"{verdict}: {held} of {available} GiB on {record['machine']}"
    batch = record["largest_batch"]
    yield (
        f"the most is held for {batch['rows']} rows of {batch['tokens']} tokens"
        f"{' (assumed: no --data)' if found.assumed else ''}"
    )
    if found.measured:
        yield (
            f"measured: {record['seconds_per_step']:.2f} s per step, "
            f"{record['seconds_per_epoch']:.0f} s per epoch of "
            f"{record['steps_per_epoch']} steps; the estimate was "
            f"{gib(record['estimated_bytes'])} GiB"
        )
    for step in found.advice:
        changes = ", ".join(f"{key}={value}" for key, value in step.changes.items())
        harm = "; changes results" if step.changes_results else ""
        yield (
            f"to fit, {step.about}: {changes} saves {gib(step.saves_bytes)} GiB, "
            f"leaves {gib(step.peak_bytes)}{harm}"
        )
    if not found.fits and not (found.advice and found.advice[-1].fits):
        yield "nothing makes it fit; take a smaller model or a larger machine"
