"""``mlx-rsft report``."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_rsft.cli import console, options


@click.command(
    "report", epilog="Example: mlx-rsft report runs/compare --lang ja --out report.html"
)
@click.argument("source", metavar="FOLDER_OR_FILE", type=click.Path(path_type=Path))
@click.option(
    "--lang",
    type=click.Choice(["en", "ja"]),
    default="en",
    show_default=True,
    help="Language of the page: English or Japanese.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="The page to write.  [default: report.html beside the record]",
)
@options.as_json
def command(source: Path, lang: str, out: Path | None, *, as_json: bool) -> None:
    """Write the page of a comparison, from its comparison.json.

    One HTML file that loads nothing and runs nothing: the verdict in words, then the
    numbers, with what failed. The same figures are written beside it as JSON and CSV.
    """
    from mlx_rsft.workflows.report import report

    written = report(source, out, lang)
    if as_json:
        console.emit_json(written)
    else:
        console.emit(f"{written['verdict']}: {written['page']}")
        console.emit(f"figures: {written['json']}, {written['csv']}")
