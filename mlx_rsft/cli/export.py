"""``mlx-rsft export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "export",
    epilog="Example: mlx-rsft export runs/first --to peft,gguf --out exported",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="TARGET,...",
    help="What to write; several with commas, or again.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="New folder, with one in it per target.  (required)",
)
@click.option(
    "--base-name",
    default="",
    metavar="NAME",
    help="What the files call the base model, such as its Hub id.",
)
@options.setting_flags(
    "model.source",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    source: Path,
    targets: tuple[str, ...],
    out: Path | None,
    *,
    base_name: str,
    as_json: bool,
) -> None:
    """Write an adapter for other programs.

    SOURCE is a run directory, or any folder with an mlx-lm adapter; --model names the
    base model where its files do not. No written file names a path of this machine.
    """
    from mlx_rsft.export.product import Choices
    from mlx_rsft.workflows.export import export

    if out is None:
        raise ConfigError("No folder is given.", where="--out", hint="Pass --out DIR.")
    entries = export(
        options.resolved(config_file, assignments),
        source,
        _split(targets),
        out,
        console.TerminalReporter(),
        choices=Choices(),
        base_name=base_name,
    )
    if as_json:
        console.emit_json(entries)
    else:
        _show(entries, out)


def _split(targets: Sequence[str]) -> list[str]:
    """The names in ``a,b`` and ``a`` ``b``, each once."""
    names = [name.strip() for text in targets for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _show(entries: Sequence[dict[str, Any]], out: Path) -> None:
    rows = [[entry["target"], str(out / entry["path"])] for entry in entries]
    console.table(["target", "path"], rows, left=True)
