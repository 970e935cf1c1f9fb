"""From the record of a comparison to its page, with the figures beside it."""

from __future__ import annotations

from pathlib import Path

from mlx_rsft import files
from mlx_rsft.data import strict_json
from mlx_rsft.errors import ConfigError, RunError
from mlx_rsft.report import comparison, flat
from mlx_rsft.report.comparison import Comparison, Mistyped
from mlx_rsft.report.sections import comparison_page

RECORD = "comparison.json"
PAGE = "report.html"


def report(source: Path, out: Path | None, lang: str) -> dict[str, str]:
    """Write the page, and its figures as JSON and CSV.

    Args:
        source: The record, or the folder of a comparison.
        out: The page to write; None: ``report.html`` beside the record.
        lang: ``en`` or ``ja``.

    Returns:
        The verdict, and the paths of what was written.

    Raises:
        RunError: If there is no record, or it is not one.
        ConfigError: If the page cannot be written there.
    """
    source = source.expanduser()
    path = source / RECORD if source.is_dir() else source
    page = path.parent / PAGE if out is None else out.expanduser()
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"The page is an HTML file, not {page.name!r}.",
            where="--out",
            hint="Give it a name that ends in .html.",
        )
    if page.is_dir():
        raise ConfigError(
            "The page cannot be written: a folder is here.", where=str(page)
        )
    record = read(path)
    table = page.with_name(f"{page.stem}-figures.csv")
    figures = page.with_name(f"{page.stem}-figures.json")
    try:
        files.write_json(figures, flat.as_record(record))
        files.write_text(table, flat.as_csv(flat.figures(record)))
        files.write_text(page, comparison_page(record, lang))
    except OSError as problem:
        raise ConfigError(
            f"The page cannot be written ({problem.strerror or problem}).",
            where=str(page),
        ) from None
    written = {"page": str(page), "json": str(figures), "csv": str(table)}
    return {"verdict": record.verdict} | written


def read(path: Path) -> Comparison:
    """The record of a comparison.

    Raises:
        RunError: If there is none, or it is something else; says where.
    """
    try:
        return comparison.from_record(strict_json.loads(path.read_text("utf-8")))
    except OSError as problem:
        raise RunError(
            f"There is no comparison to read here ({problem.strerror or problem}).",
            where=str(path),
            hint=f"Name a {RECORD}, or a folder with one; compare writes them.",
        ) from None
    except Mistyped as problem:
        raise RunError(
            f"This is not the record of a comparison: {problem}.", where=str(path)
        ) from None
    except ValueError as problem:
        raise RunError(f"This is not JSON: {problem}.", where=str(path)) from None
