"""The guided whole: look at the rows, fit a comparison into the time, decide, export.

OUT/  pilot.json       the plan, written before training; then what came of it
      data/            rows that were made or cut for it
      probe.html       what the bare model makes of the rows; suspects.csv beside it
      compared/        as ``compare`` writes it
      report.html      its page, with report-figures.json and report-figures.csv
      export/          the winner, in each form read back and compared
      settings.toml    the settings that all arms share, for ``--config``
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files, manifest
from mlx_rsft.config import Resolved
from mlx_rsft.errors import RunError
from mlx_rsft.evaluation import verdict
from mlx_rsft.export.product import Choices
from mlx_rsft.records import finite
from mlx_rsft.workflows import (
    compare,
    decided,
    export,
    following,
    gathered,
    pace,
    report,
    sized,
    staging,
)
from mlx_rsft.workflows.reporter import Reporter

RECORD, PAGE, EXPORTED = "pilot.json", "report.html", "export"
BEFORE = {gathered.FOLDER, gathered.MADE, sized.PROBED, sized.SUSPECTS}
"""What may be there before there is a plan."""
TARGETS = ("mlx", "peft")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, beside the settings of a run.

    Attributes:
        minutes: For the whole.
        arms: Objectives to hold against each other; none: what the probe recommends.
        targets: Forms in which the winner is exported.
        lang: Language of the page.
    """

    out: Path
    minutes: float
    arms: Sequence[str] = ()
    targets: Sequence[str] = TARGETS
    lang: str = "en"


def pilot(resolved: Resolved, request: Request, reporter: Reporter) -> dict[str, Any]:
    """Do what is not done yet; the same command goes on after an interruption.

    Returns:
        What ``pilot.json`` holds.

    Raises:
        ConfigError: If the minutes do not hold the smallest pilot, or settings are off.
        CheckFailed: If the rows would spoil the verdict.
        RunError: If the folder holds something else.
        Interrupted: If the user stopped it.
    """
    began = time.monotonic()
    out = request.out
    export.check_targets(request.targets)
    staging.check_folder(out, mark=RECORD, aside=BEFORE, what="pilot")
    rows = gathered.gather(resolved, out, reporter)
    staging.check_settings(rows.resolved, "A pilot")
    plan = _planned(rows, request, began, reporter)
    if plan.get("finished"):
        reporter.note(f"This pilot is done already: {out / RECORD}.")
        return plan
    planned = time.monotonic()
    settings = sized.fitted(rows.resolved, plan)
    found = _compared(settings, plan, out, reporter)
    report.report(out / sized.COMPARED, out / PAGE, request.lang)
    entries = _exported(found, request, reporter)
    record = {
        **plan,
        **_outcome(settings, found, out),
        "export": entries,
        "exported": all(entry["verified"] is not False for entry in entries),
        "seconds": plan["spent_seconds"] + time.monotonic() - planned,
        "finished": manifest.now(),
    }
    text = configuration.given_as_toml(rows.resolved)
    files.write_text(out / following.SETTINGS, text)
    steps = following.steps(settings, record, out)
    record["next"] = [
        {"why": step.why, "arguments": list(step.arguments)} for step in steps
    ]
    files.write_json(out / RECORD, record)
    return record


def _planned(
    rows: gathered.Gathered, request: Request, began: float, reporter: Reporter
) -> dict[str, Any]:
    """The plan that is there, or a new one, on disk when this returns.

    Raises:
        RunError: If the plan that is there is one for something else.
    """
    asked = _asked(rows, request)
    place = request.out / RECORD
    if place.exists():
        plan = json.loads(place.read_text(encoding="utf-8"))
        if differs := [key for key in asked if plan["asked"].get(key) != asked[key]]:
            raise RunError(
                f"The pilot that is here was asked otherwise: {', '.join(differs)}.",
                where=str(request.out),
                hint="Pass another --out, or ask as before.",
            )
        reporter.note(f"The plan of {plan['created']} holds: {sized.summary(plan)}.")
        return plan
    plan = sized.plan(rows, request.arms, request.out, request.minutes, began, reporter)
    plan = {key: finite(value) for key, value in plan.items()} | {"asked": asked}
    files.write_json(place, {**plan, "finished": None})
    return plan


def _asked(rows: gathered.Gathered, request: Request) -> dict[str, Any]:
    """What decides a pilot, as JSON has it."""
    return {
        "minutes": request.minutes,
        "arms": list(request.arms),
        "targets": list(request.targets),
        "lang": request.lang,
        "settings": configuration.given_as_toml(rows.resolved).splitlines(),
        "rows": gathered.hashes(rows.resolved),
    }


def _compared(
    settings: Resolved, plan: Mapping[str, Any], out: Path, reporter: Reporter
) -> dict[str, Any]:
    size = plan["size"]
    asked = compare.Request(
        size["arms"],
        out / sized.COMPARED,
        size["seeds"],
        size["arms"][0],
        every=max(1, -(-size["steps"] // pace.LOOKS)),
    )
    return compare.compare(settings, asked, reporter)


def _exported(
    found: Mapping[str, Any], request: Request, reporter: Reporter
) -> list[dict[str, Any]]:
    """The winner's products; those that are there are complete, and are kept."""
    place = request.out / EXPORTED
    if (place / export.RECORD).exists():
        return json.loads((place / export.RECORD).read_text(encoding="utf-8"))
    run = decided.run_of(found, request.out / sized.COMPARED)
    nothing = configuration.resolve([])
    return export.export(nothing, run, request.targets, place, Choices(), reporter)


def _outcome(settings: Resolved, found: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The verdict and what it stands on."""
    lacks = decided.missing(found)
    return {
        "verdict": found["verdict"],
        "reason": found["reason"],
        "winner": decided.winner(found),
        "baseline": found["baseline"],
        "run": str(decided.run_of(found, out / sized.COMPARED)),
        "decides": found["method"]["decides"],
        "margin": verdict.MARGIN,
        "arms": found["arms"],
        "differences": found["differences"],
        "gained": decided.gained(settings, found, out / sized.COMPARED),
        "missing": asdict(lacks) if lacks else None,
        "limits": found["limits"],
        "splits": found["splits"],
        "page": str(out / PAGE),
    }
