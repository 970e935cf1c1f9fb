"""``mlx-rsft ratings``."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_rsft.cli import console, options


@click.command("ratings", epilog="Example: mlx-rsft ratings blind/sheet.csv")
@click.argument(
    "sheets",
    nargs=-1,
    required=True,
    metavar="SHEET.csv...",
    type=click.Path(path_type=Path),
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="key.json",
    help="Who wrote what.  [default: beside the first sheet]",
)
@options.as_json
def command(sheets: tuple[Path, ...], key: Path | None, *, as_json: bool) -> None:
    """Read blind sheets that people have filled in.

    The sheets are those of eval --rater-sheet, one copy per rater. Prints how often the
    adapter's answer was found better, with a 95 % interval, and the sign test's p value.
    """
    from mlx_rsft.workflows.rating import read

    record = read(sheets, key)
    if as_json:
        console.emit_json(record)
        return
    share = record["win_share"]
    said = f"{record['wins']} better, {record['losses']} worse, {record['ties']} equal"
    console.emit(f"{record['adapter']} against {record['against']}: {said}")
    console.emit(
        f"{record['rated']} of {record['pairs']} pairs rated by {record['raters']}; "
        f"{record['identical']} identical answers were not shown"
    )
    if share:
        console.emit(
            f"better in {share['value']:.0%} of those decided (95 % interval "
            f"{share['low']:.0%} to {share['high']:.0%}), sign test p = "
            f"{record['p_value']:.3g}"
        )
