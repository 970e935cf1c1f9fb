"""Cards for exported folders, and their way to the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import files, hub, records
from mlx_rsft.errors import CheckFailed, ConfigError
from mlx_rsft.export import card
from mlx_rsft.export.card import Story
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Product
from mlx_rsft.models.source import HUB_ID
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import subject
from mlx_rsft.workflows.reporter import Reporter

Entries = Sequence[Mapping[str, Any]]


def story(adapter: Path) -> Story:
    """What the run of an adapter wrote of itself; empty if there is none."""
    run = RunDir(subject.folder_of(adapter).resolve().parent)
    if not run.manifest.is_file():
        return Story({}, ())
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    lines = list(records.read_lines(run.evals)) if run.evals.is_file() else []
    return Story(manifest, lines)


def write_card(live: Live, product: Product, told: Story, entries: Entries) -> None:
    """Put ``README.md`` into the folder of a product."""
    text = card.text(live, product, told, entries)
    files.write_text(card.folder(product) / "README.md", text)


def check(repository: str, targets: Sequence[str], *, verified: bool) -> None:
    """Raise ConfigError unless one verified product is to go to a repository."""
    if not repository:
        return
    if not HUB_ID.fullmatch(repository):
        problem = f"{repository!r} is no repository", "Write it like OWNER/NAME."
    elif len(targets) != 1:
        problem = f"{len(targets)} targets for one repository", "Pass one --to."
    elif not verified:
        problem = "nothing unverified is published", "Leave --no-verify out."
    else:
        return
    raise ConfigError(f"{problem[0]}.", where="--push", hint=problem[1])


def push(
    repository: str, folder: Path, entries: Entries, reporter: Reporter, *, public: bool
) -> str:
    """Upload an exported folder, private unless told otherwise; returns its address.

    Raises:
        CheckFailed: If a reader found something else, or none could be asked.
        RunError: If the Hub does not take it.
    """
    if {entry["verified"] for entry in entries} - {None} != {True}:
        raise CheckFailed(
            "Nothing is uploaded: no reader has verified it.",
            where="--push",
            hint="See export.json; install mlx-rsft's verify extra for llama.cpp.",
        )
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in found)
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    kind = "public" if public else "private"
    reporter.note(
        f"uploading {len(found)} files, {size / 1e6:.1f} MB, to the {kind} repository "
        f"{repository}: {names}"
    )
    return hub.upload(folder, repository, private=not public)


def folder_of(out: Path, entries: Entries) -> Path:
    """The folder of the one product that was exported into ``out``."""
    path = out / entries[0]["path"]
    return path if path.is_dir() else path.parent
