"""``mlx-rsft train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "train",
    epilog="Example: mlx-rsft train --model demo --data runs/demo/data --objective "
    "dft:floor=0.1 --run-dir runs/first",
)
@options.objective_flag
@options.profile_flag
@options.setting_flags(
    *options.TRAINING, "adapter.init", *options.KEEPING, "evaluation.side_effects"
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for everything the run writes: a new one, or with --resume the "
    "run's.  (required)",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --run-dir, exactly as if it had never been cut off.",
)
@click.option(
    "--extend-to",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="With --resume: go on to so many steps, with the learning rates that a run of "
    "that length has from there on.",
)
@click.option("--dry-run", is_flag=True, help="Check and load all, train nothing.")
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    run_dir: Path | None,
    *,
    resume: bool,
    extend_to: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fine-tune a model on your rows.

    Trains a LoRA or DoRA adapter, or the weights themselves, every assistant turn
    supervised and nothing else. The adapter in RUN/adapter loads in mlx-lm as it is.
    """
    from mlx_rsft.workflows import ranked, train

    settings = options.resolved(config_file, assignments)
    if run_dir is None:
        raise ConfigError("No run directory is given.", hint="Pass --run-dir DIR.")
    if extend_to and not resume:
        raise ConfigError("--extend-to comes with --resume.", where="--extend-to")
    reporter = console.TerminalReporter()
    if resume:
        job = train.prepare_again(settings, run_dir, reporter, extend_to or 0)
    else:
        job = train.prepare(settings, run_dir, reporter)
    if not job.ranks.leads:  # rank 0 speaks for all
        if not dry_run:
            ranked.follow(job)
        return
    if dry_run:
        _show_plan(job.summary(), as_json=as_json)
        return
    result = train.train(job, run_dir, reporter)
    if as_json:
        console.emit_json(result)
    else:
        _show(result)


def _show_plan(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.emit_json(summary)
        return
    for name, value in summary.items():
        console.emit(f"{name.replace('_', ' '):18} {value}")


def _show(result: dict[str, Any]) -> None:
    console.emit(
        f"{result['steps']} steps in {result['seconds']:.0f} s; last step: NLL "
        f"{result['nll']:.3f} nats/token, mean p {result['mean_p']:.2f}"
    )
    console.emit(f"adapter: {result['adapter']}")
