"""The story of a run, and whether its folder is as it was written: by its log alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import files, ledger
from mlx_rsft.errors import RunError
from mlx_rsft.ledger import Log
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import sealing
from mlx_rsft.workflows.sealing import Expected

ALTERED, MISSING, EXTRA = "altered", "missing", "extra"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written.

    Attributes:
        file: Its place in the run's folder, or an ancestor's folder.
        what: ``altered``, ``missing`` or ``extra``.
        detail: In words.
    """

    file: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of a run has found.

    Attributes:
        files: How many files are sealed.
        seal: The last seal of the log: noted elsewhere, it proves the whole folder.
        state: The last event: ``ended``, or how far a run has come that was cut off.
        findings: What is not as it was written.
        open: What no seal covers yet, because the run was cut off before the next.
    """

    files: int
    seal: str
    state: str
    findings: tuple[Finding, ...]
    open: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """The check as ``--json`` prints it."""
        return {"sound": not self.findings, **asdict(self)}


def verify(path: Path, seal: str = "") -> Verified:
    """Hold every file of a run against the log, the log against itself.

    Args:
        path: The run.
        seal: One that was noted elsewhere; the log has to hold it.

    Raises:
        RunError: If there is no run, or one from before there were logs.
    """
    log = ledger.read(path)
    if not (path / ledger.NAME).exists() and not RunDir(path).manifest.exists():
        raise RunError("There is no run.", where=str(path), hint="Name its folder.")
    wanted = sealing.expected(log.events)
    at_rest = (
        bool(log.events)
        and log.events[-1]["event"] in sealing.AT_REST
        and not _has_card_before(path, wanted)
    )
    found = list(_of_log(path, log, at_rest=at_rest))
    if seal and seal not in {event[ledger.SEAL] for event in log.events}:
        detail = f"it does not hold the seal {seal[:12]}"
        found.append(Finding(ledger.NAME, ALTERED, detail))
    found += _of_files(path, wanted)
    extra = [
        place
        for place in ledger.places(path)
        if place not in {*wanted.files, *wanted.so_far, ledger.NAME}
    ]
    if at_rest or log.broken:
        found += [
            Finding(place, EXTRA, "no event of the log put it there") for place in extra
        ]
        extra = []
    found += _of_ancestors(path)
    return Verified(
        len(wanted.files) + len(wanted.so_far),
        log.head,
        _state(log),
        tuple(found),
        (*extra, *_beyond(path, wanted)),
    )


def check_untouched(path: Path) -> None:
    """Hold a run that was cut off against its log, before it goes on.

    A checkpoint that was removed on purpose is no reason to stop.

    Raises:
        RunError: If anything else is not as it was written; going on would seal it.
    """
    inside = f"{RunDir(path).checkpoints.name}/"
    found = [one for one in verify(path).findings if not one.file.startswith(inside)]
    if found:
        names = ", ".join(f"{one.file} is {one.what}" for one in found[:5])
        raise RunError(
            f"The run is not as it was written: {names}.",
            where=str(path),
            hint=f"See mlx-rsft audit verify {path}; put it back, or begin another run.",
        )


def _state(log: Log) -> str:
    last = next((e for e in reversed(log.events) if e["event"] != sealing.ADDED), None)
    if last is None:
        return "nothing"
    step = last.get("step", last.get("steps"))
    return last["event"] + ("" if step is None else f" after step {step}")


def _of_log(path: Path, log: Log, *, at_rest: bool) -> Iterator[Finding]:
    if not (path / ledger.NAME).is_file():
        yield Finding(ledger.NAME, MISSING, "nothing can be held against it")
    elif log.broken:
        yield Finding(ledger.NAME, ALTERED, log.broken)
    elif not log.events or (log.torn and at_rest):
        yield Finding(ledger.NAME, ALTERED, "it ends in the midst of a line")
    elif not at_rest and _is_finished(path):
        detail = "its end is cut off: the manifest is finished and the log is not"
        yield Finding(ledger.NAME, ALTERED, detail)


def _is_finished(path: Path) -> bool:
    try:
        card = json.loads(RunDir(path).manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and bool(card.get("finished"))


def _has_card_before(path: Path, wanted: Expected) -> bool:
    """Whether a kill came between a seal and the manifest that it is of."""
    card = RunDir(path).manifest
    now = files.sha256(card) if card.is_file() else ""
    return now == wanted.manifest_before != wanted.files.get(card.name)


def _of_files(path: Path, wanted: Expected) -> Iterator[Finding]:
    manifest = RunDir(path).manifest.name
    for place, digest in wanted.files.items():
        file = path / place
        if not file.is_file():
            yield Finding(place, MISSING, "it is not there")
        elif file.is_symlink():
            yield Finding(place, ALTERED, "it is a link now")
        elif (now := files.sha256(file)) != digest and not (
            place == manifest and _has_card_before(path, wanted)
        ):
            yield Finding(place, ALTERED, f"SHA-256 {now[:12]}, sealed {digest[:12]}")
    for place, begun in wanted.so_far.items():
        file = path / place
        if not file.is_file():
            yield Finding(place, MISSING, "it is not there")
        elif _sha256_of_first(file, begun["bytes"]) != begun["sha256"]:
            detail = f"its first {begun['bytes']} bytes are not those that were sealed"
            yield Finding(place, ALTERED, detail)


def _beyond(path: Path, wanted: Expected) -> Iterator[str]:
    """Files that have grown since the last seal."""
    for place, begun in wanted.so_far.items():
        file = path / place
        if file.is_file() and file.stat().st_size > begun["bytes"]:
            yield f"{place} beyond byte {begun['bytes']}"


def _sha256_of_first(path: Path, count: int) -> str:
    with path.open("rb") as file:
        held = file.read(count)
    return hashlib.sha256(held).hexdigest() if len(held) == count else ""


def _of_ancestors(path: Path) -> Iterator[Finding]:
    """Ancestors that are still where they were, held against what the run noted."""
    for one in lineage(path):
        run = RunDir(Path(one["source"]))
        if "seal" not in one or not run.path.is_dir():
            continue
        seals = {event[ledger.SEAL] for event in ledger.read(run.path).events}
        if one["seal"] not in {*seals, ledger.FIRST}:
            file = str(run.path / ledger.NAME)
            yield Finding(file, ALTERED, "it does not hold the seal noted here")
        for name, digest in one["adapter"].items():
            file = run.adapter / name
            if file.is_file() and files.sha256(file) != digest:
                yield Finding(str(file), ALTERED, "the run began from other bytes")


def lineage(path: Path) -> list[Mapping[str, Any]]:
    """What a run stands on, by its manifest; nothing where that cannot be read."""
    try:
        card = json.loads(RunDir(path).manifest.read_text(encoding="utf-8"))
        return [one for one in card["lineage"] if isinstance(one["source"], str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
