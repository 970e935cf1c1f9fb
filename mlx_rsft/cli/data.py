"""``mlx-rsft data``."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_rsft.cli import console, options


@click.group("data")
def command() -> None:
    """Work with data files."""


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
