"""Runs that are there already: recognised by settings, rows and model, not repeated."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import rundir
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows.job import Job

OUTCOME_FREE = {
    ("model", "source"),  # known by their content
    ("data", "source"),
    ("training", "trunk_cache"),
    ("training", "trunk_gb"),
    ("training", "checkpoint_every"),
    ("training", "keep"),
    ("training", "keep_at"),
    ("training", "battery_floor"),
    ("evaluation", "side_effects"),
}
"""Settings that do not change what a run trains; nor does any of ``[evaluation]``."""


def is_there(path: Path, job: Job) -> bool:
    """Whether a run is there, done, and the same one; what was cut off is removed.

    Raises:
        RunError: If it is another one, another process trains it, or the folder is no
            run of ours.
    """
    run = RunDir(path)
    if not path.exists():
        return False
    if not run.manifest.exists() and not rundir.is_free(path):
        raise RunError("The folder is no run.", where=str(path), hint="Remove it.")
    if not _is_finished(run):
        with rundir.held(path):
            if not _is_finished(run):  # nor has another process finished it meanwhile
                rundir.clear(path)
                return False
    held = card(path)
    differs = _difference(held, tomllib.loads(run.config.read_text("utf-8")), job)
    if differs:
        raise RunError(
            f"The run is another one: {differs}.",
            where=str(path),
            hint="Pass another --out, or the settings and data of before.",
        )
    return True


def _is_finished(run: RunDir) -> bool:
    return run.manifest.exists() and bool(card(run.path).get("finished"))


def _difference(card: Mapping[str, Any], held: dict[str, Any], job: Job) -> str:
    """What differs between a run that is there and one that is wanted; empty if none."""
    wanted = tomllib.loads(configuration.as_toml(job.resolved))
    if table := next((t for t in wanted if _of(held, t) != _of(wanted, t)), None):
        return f"its settings differ in {table}"
    for name, files in job.splits.files.items():
        was = card["data"]["splits"].get(name, {}).get("sha256", {})
        if sorted(was.values()) != sorted(files.values()):
            return f"its rows of {name} were others"
    now = json.loads(json.dumps(job.loaded.weights()))
    if any(card["model"][key] != value for key, value in now.items()):
        return "it began from another model"
    return ""


def _of(settings: Mapping[str, Any], table: str) -> object:
    """A table of settings without what does not change the outcome."""
    values = settings.get(table)
    if table == "evaluation" or not isinstance(values, dict):
        return None if table == "evaluation" else values
    return {key: v for key, v in values.items() if (table, key) not in OUTCOME_FREE}


def card(path: Path) -> dict[str, Any]:
    """The identity card of a run."""
    return json.loads(RunDir(path).manifest.read_text(encoding="utf-8"))
