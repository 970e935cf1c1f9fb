"""What a run stands on: the adapter it began from, that one's run, and so on back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_rsft import ledger
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import Config
from mlx_rsft.workflows import starting

KEPT = ("started", "finished", "seed", "objective", "config_sha256")
"""What of an ancestor's manifest its descendants keep, for when it is gone."""


def ancestors(config: Config) -> list[dict[str, Any]]:
    """The adapters that a run stands on, the oldest first; none for a fresh one."""
    if not config.adapter.init:
        return []
    parent: dict[str, Any] = {"adapter": starting.record(config)["init"]["sha256"]}
    folder = Path(config.adapter.init).expanduser().resolve()
    run = RunDir(folder.parent)
    if folder != run.adapter or not run.manifest.is_file():
        return [{"source": str(folder), **parent}]
    card = json.loads(run.manifest.read_text(encoding="utf-8"))
    splits = card["data"]["splits"]
    parent |= {
        "source": str(run.path),
        **{key: card[key] for key in KEPT},
        "data": {name: list(told["sha256"].values()) for name, told in splits.items()},
        "model": card["model"]["sha256"],
        "seal": ledger.read(run.path).head,
    }
    return [*card.get("lineage", ()), parent]
