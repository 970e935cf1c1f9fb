"""A frozen suite asked of one adapter or model version after another, and a gate."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation, files, manifest, records
from mlx_rsft.config import Resolved
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.examples import Shape, examples
from mlx_rsft.errors import ModelError, RunError
from mlx_rsft.evaluation import Gauge, Measured, gate
from mlx_rsft.evaluation.gate import WORSE, Check
from mlx_rsft.evaluation.values import Values
from mlx_rsft.models import load, source
from mlx_rsft.records import finite
from mlx_rsft.report.drift import drift_page
from mlx_rsft.workflows import assemble, suite
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.suite import HISTORY, PAGE, Suite

PASS, REGRESSION, REFERENCE = "pass", "regression", "reference"
JOINS, RESTARTS = "joins", "restarts"
"""How an entry may be one of those that later ones are held against."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be scored, beside the settings.

    Attributes:
        adapter: None: the bare model.
        label: What it is called on the page; empty: by its folder.
        reference: ``joins`` the references, ``restarts`` them, or empty: is judged.
        again: Whether to measure what is in the history already.
    """

    adapter: Path | None
    label: str = ""
    reference: str = ""
    again: bool = False


def score(
    folder: Path, resolved: Resolved, request: Request, reporter: Reporter
) -> dict[str, Any]:
    """Ask the suite of a model, judge it, add it to the history, draw the page.

    Returns:
        The entry of the history, without what the rows said.

    Raises:
        RsftError: Whatever is wrong with suite, history, model or adapter.
    """
    configuration.require(resolved.config, "model.source")
    frozen = suite.read(folder)
    gauges = frozen.gauges()
    history = read_history(folder)
    identity = _identity(resolved, frozen, request.adapter)
    known = next((one for one in history if one["of"] == identity), None)
    if known and not (request.again or request.reference):
        reporter.note(
            f"{known['label']} is in the history already, as {known['verdict']}."
        )
        return _shown(known)
    measured = _measured(frozen, gauges, resolved, request.adapter, reporter)
    entry = {
        "time": manifest.now(),
        "label": request.label or _label(resolved, request.adapter),
        "of": identity,
        "splits": {name: found.as_record() for name, found in measured.items()},
        "rows": {
            name: {metric: asdict(found.values[metric]) for metric in gauges}
            for name, found in measured.items()
        },
    }
    held = references(history)
    kind = request.reference or ("" if held else JOINS)
    entry |= _judged(frozen, gauges, entry, [] if kind else held)
    entry |= {"reference": kind, **({"verdict": REFERENCE} if kind else {})}
    records.append(folder / HISTORY, json.loads(json.dumps(finite(entry))))
    files.write_text(folder / PAGE, drift_page(read_history(folder), _better(gauges)))
    if kind:
        reporter.note(f"{entry['label']} is what later ones are compared with.")
    elif len(held) == 1:
        reporter.note(
            "There is one reference, so how much seeds differ is not known; a wider "
            "tolerance stands for it. Score two or more re-trainings with --reference."
        )
    return _shown(entry)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Every scoring so far, the oldest first.

    Raises:
        RunError: If a line cannot be read.
    """
    path = folder / HISTORY
    if not path.exists():
        return []
    try:
        return list(records.read_lines(path))
    except ValueError as problem:
        raise RunError(
            f"The history cannot be read ({problem}).",
            where=str(path),
            hint="Remove the line that is not whole; nothing else is lost.",
        ) from None


def references(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that a new model is held against; each model counts once."""
    found: list[Mapping[str, Any]] = []
    for entry in history:
        if entry["reference"] == RESTARTS:
            found = [entry]
        elif entry["reference"] == JOINS:
            found = [*(one for one in found if one["of"] != entry["of"]), entry]
    return found


def _identity(
    resolved: Resolved, frozen: Suite, adapter: Path | None
) -> dict[str, Any]:
    """What is asked of what: the suite, and hashes of model and adapter files."""
    model = resolved.config.model
    held = load.identity(source.as_folder(model.source))
    kinds = ("*.safetensors", "adapter_config.json")
    own = sorted(p for kind in kinds for p in adapter.glob(kind)) if adapter else []
    if adapter and not own:
        raise ModelError("There is no adapter.", where=str(adapter))
    return {
        "suite": frozen.sha256,
        "model": manifest.text_sha256(json.dumps(held)),
        "precision": [model.precision, model.quantize],
        "template": resolved.config.data.template,
        "adapter": {path.name: files.sha256(path) for path in own},
    }


def _label(resolved: Resolved, adapter: Path | None) -> str:
    if adapter is None:
        return resolved.config.model.source
    place = adapter.expanduser().resolve()
    return place.parent.name if place.name == "adapter" else place.name


def _measured(
    frozen: Suite,
    gauges: Mapping[str, Gauge],
    resolved: Resolved,
    adapter: Path | None,
    reporter: Reporter,
) -> dict[str, Measured]:
    loaded = assemble.model(resolved.config, reporter)
    asked = frozen.asked
    shape = Shape(loaded.tokenizer, asked["train_on"], asked["max_length"], "refuse")
    rows: dict[str, list[Example]] = {
        name: list(examples(held, shape, Counter()))
        for name, held in frozen.rows.items()
    }
    split = assemble.adapted(loaded, adapter)
    found: dict[str, Measured] = {}
    for name, held in rows.items():
        with reporter.task(f"ask {name}", len(held)) as advance:
            found[name] = evaluation.measure(
                split, loaded.tokenizer, held, gauges, asked["max_tokens"], advance
            )
    return found


def _judged(
    frozen: Suite,
    gauges: Mapping[str, Gauge],
    entry: Mapping[str, Any],
    held: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The checks, and whether any says that the model is worse."""
    watched = [
        (name, gauge)
        for name in entry["rows"]
        for gauge in gauges.values()
        if gate.gates(gauge)
    ]
    checks: list[Check] = [
        gate.check(
            (split, gauge),
            _values(entry, split, gauge),
            [_values(one, split, gauge) for one in held],
            frozen.tolerance.get(gauge.name),
            len(watched),
        )
        for split, gauge in watched
        if held
    ]
    beyond = [
        f"{split} {gauge.name} is beyond its limit of {frozen.limits[gauge.name]:g}"
        for split, gauge in watched
        if gauge.name in frozen.limits
        and _is_beyond(
            entry["splits"][split]["metrics"][gauge.name],
            frozen.limits[gauge.name],
            gauge.better,
        )
    ]
    bad = bool(beyond) or any(check.outcome == WORSE for check in checks)
    return {
        "checks": [asdict(check) for check in checks],
        "beyond": beyond,
        "verdict": REGRESSION if bad else PASS,
    }


def _values(entry: Mapping[str, Any], split: str, gauge: Gauge) -> Values:
    """What a metric said of each row; what was no number is none again."""
    held = entry["rows"][split][gauge.name]
    totals = [math.nan if value is None else value for value in held["totals"]]
    return Values(totals, held["counts"])


def _is_beyond(metric: Mapping[str, Any], limit: float, better: str) -> bool:
    """Whether all of its interval is on the wrong side of a limit."""
    low, high = metric["low"], metric["high"]
    return not (high >= limit if better == "higher" else low <= limit)


def _better(gauges: Mapping[str, Gauge]) -> dict[str, str]:
    return {name: gauge.better for name, gauge in gauges.items()}


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "rows"}
