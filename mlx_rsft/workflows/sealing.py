"""What a run says in its log, and when: as it begins, at checkpoints, at its end, after.

A manifest is sealed before it is written, so that a run is never finished but for its
log; where a kill comes in between, the log knows the one before too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import files, ledger, manifest
from mlx_rsft.models import stored
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.training.checkpoint import Facts

BEGUN, CHECKPOINT, WENT_BACK, RESUMED = "begun", "checkpoint", "went back", "resumed"
STOPPED, ENDED, ADDED = "stopped", "ended", "added"
AT_REST = (STOPPED, ENDED, ADDED)
"""After these nothing more is written but what the log is told of."""


def begin(run: RunDir) -> None:
    """Seal what a run begins with, all of it there by now."""
    ledger.append(run.path, BEGUN, files=ledger.inventory(run.path), so_far={})


def write_card(run: RunDir, card: Mapping[str, Any], event: str, **facts: Any) -> None:
    """Write the manifest, and seal with it everything that is in the folder.

    Args:
        run: The run.
        card: The manifest's fields.
        event: What has happened.
        **facts: What else is to be known of it.
    """
    text = manifest.as_text(card)
    name = run.manifest.name
    held = ledger.inventory(run.path)
    growing = so_far(run) if event not in AT_REST else {}
    sealed = {place: held[place] for place in held if place not in growing}
    if name in held:
        facts["manifest_before"] = held[name]
    sealed[name] = manifest.text_sha256(text)
    ledger.append(run.path, event, **facts, files=sealed, so_far=growing)
    files.write_text(run.manifest, text)


def at_checkpoint(run: RunDir, step: int, kept: Collection[int]) -> None:
    """Seal the records so far, and the checkpoints of the steps that will be kept."""
    ledger.append(
        run.path, CHECKPOINT, step=step, files=_kept(run, kept), so_far=so_far(run)
    )


def clear(run: RunDir) -> None:
    """Remove what a kill has left half-written under a name of its own."""
    for whole in (run.manifest, run.rows, run.salt, run.adapter):
        for left in run.path.glob(f".{whole.name}.*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def went_back(run: RunDir, good: Facts, kept: Collection[int]) -> None:
    """Seal what is left of a run that goes back, before the rest is removed."""
    counts = {run.steps: good.step, run.weights: good.step, run.evals: good.evals}
    left = {
        path.name: _begins(
            b"".join(path.read_bytes().splitlines(keepends=True)[:count])
        )
        for path, count in counts.items()
        if path.is_file()
    }
    ledger.append(
        run.path, WENT_BACK, step=good.step, files=_kept(run, kept), so_far=left
    )


def _kept(run: RunDir, steps: Collection[int]) -> dict[str, str]:
    """Hashes of the files of some checkpoints; of a state, as it says itself."""
    sealed: dict[str, str] = {}
    for place in checkpoint.found(run.checkpoints):
        if checkpoint.step_of(place) not in steps:
            continue
        facts, inside = place / checkpoint.FACTS, place.relative_to(run.path)
        state = json.loads(facts.read_text(encoding="utf-8"))["state_sha256"]
        sealed[(inside / checkpoint.FACTS).as_posix()] = files.sha256(facts)
        sealed[(inside / checkpoint.STATE).as_posix()] = state
        sealed |= _adapter(place / checkpoint.ADAPTER, inside / checkpoint.ADAPTER)
    return sealed


def _adapter(folder: Path, inside: Path) -> dict[str, str]:
    """Hashes of an adapter's files, if it is there; of its weights, as it says itself."""
    config = folder / stored.CONFIG
    if not config.is_file():
        return {}
    sums = json.loads(config.read_text(encoding="utf-8"))[stored.SUMS]
    hashes = {**sums, config.name: files.sha256(config)}
    return {(inside / name).as_posix(): digest for name, digest in hashes.items()}


def so_far(run: RunDir) -> dict[str, dict[str, Any]]:
    """Bytes and hashes of the files that a run adds lines to."""
    growing = [run.steps, run.weights, run.evals]
    return {path.name: _begins(path.read_bytes()) for path in growing if path.is_file()}


def _begins(held: bytes) -> dict[str, Any]:
    return {"bytes": len(held), "sha256": hashlib.sha256(held).hexdigest()}


def rewrite_card(run: RunDir, card: Mapping[str, Any], why: str) -> None:
    """Replace the manifest of a run at rest; what else is there is not sealed anew."""
    text = manifest.as_text(card)
    sealed = {run.manifest.name: manifest.text_sha256(text)}
    if ledger.read(run.path).events:
        ledger.append(run.path, ADDED, why=why, files=sealed)
    files.write_text(run.manifest, text)


def add(run: RunDir, why: str, paths: Sequence[Path]) -> None:
    """Seal files that were put into a run after its end, unless they are sealed.

    A run of before there were logs stays without one.
    """
    log = ledger.read(run.path)
    if not log.events:
        return
    known = expected(log.events).files
    found = {p.relative_to(run.path).as_posix(): files.sha256(p) for p in paths}
    fresh = {
        place: digest for place, digest in found.items() if known.get(place) != digest
    }
    if fresh:
        ledger.append(run.path, ADDED, why=why, files=fresh)


class Expected:
    """What a folder has to hold by its log.

    Attributes:
        files: Hashes by place.
        so_far: Bytes and hash of what files that grew began with.
        manifest_before: What the manifest may still be, where a kill came in between.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.so_far: dict[str, Mapping[str, Any]] = {}
        self.manifest_before = ""


def expected(events: Sequence[Mapping[str, Any]]) -> Expected:
    """What a folder has to hold after these events."""
    made = Expected()
    for event in events:
        if event["event"] == ADDED:
            made.files |= event["files"]
            continue
        inside = f"{RunDir(Path()).checkpoints.name}/"
        others = {p: d for p, d in made.files.items() if not p.startswith(inside)}
        kept = others if event["event"] in (CHECKPOINT, WENT_BACK) else {}
        made.files = kept | event["files"]
        made.so_far = dict(event["so_far"])
        made.manifest_before = event.get("manifest_before", "")
    return made
