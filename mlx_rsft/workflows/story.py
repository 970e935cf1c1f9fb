"""A run in sentences: what was trained on what, by which code, where, and since when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import ledger
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir

SHORT = 12
"""Letters of a hash that are shown."""


def read(path: Path) -> dict[str, Any]:
    """The manifest and the log of a run, as ``--json`` prints them.

    Raises:
        RunError: If there is no manifest that can be read.
    """
    file = RunDir(path).manifest
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise RunError(
            f"There is no manifest that can be read ({problem}).",
            where=str(file),
            hint="Name the folder of a run.",
        ) from None
    log = ledger.read(path)
    return {"manifest": card, "events": list(log.events), "seal": log.head}


def told(record: Mapping[str, Any]) -> Iterator[str]:
    """The same, line by line."""
    card = record["manifest"]
    yield from _what(card)
    yield from _data(card)
    yield from _before(card)
    yield from _with(card)
    yield from _effects(card)
    yield from _log(record)


def _what(card: Mapping[str, Any]) -> Iterator[str]:
    result = card.get("result") or {}
    ended = card.get("finished") or (
        "stopped by the user" if card.get("interrupted") else "cut off, or running"
    )
    objective = ", ".join(f"{k} {v}" for k, v in card["objective"].items())
    yield f"trained    {objective}; seed {card['seed']}"
    yield f"command    {' '.join(card['command'])}"
    yield f"began      {card['started']}; ended: {ended}"
    if steps := ", ".join(str(step) for step in card.get("resumed") or ()):
        yield f"resumed    after step {steps}"
    if "steps" in result:
        seconds = result.get("seconds", 0)
        yield f"result     {result['steps']} steps in {seconds:.0f} s, NLL {_number(result.get('nll'))}"


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    model = card["model"]
    weights = {n: d for n, d in model["sha256"].items() if n.endswith(".safetensors")}
    yield f"model      {model['source']}: {_hashes(weights)}"
    for name, split in card["data"]["splits"].items():
        hashes = {Path(file).name: digest for file, digest in split["sha256"].items()}
        yield f"data       {name}, {split['rows']} rows: {_hashes(hashes)}"
    if rows := card.get("rows"):
        count, digest = rows["examples"], rows["sha256"][:SHORT]
        yield f"rows       {count} examples as salted hashes: rows.jsonl {digest}"


def _before(card: Mapping[str, Any]) -> Iterator[str]:
    lineage: Sequence[Mapping[str, Any]] = card.get("lineage") or ()
    for number, one in enumerate(lineage, start=1):
        yield f"ancestor {number} {one['source']}: {_hashes(one['adapter'])}"
        if "objective" in one:
            data = ", ".join(
                f"{name} {' '.join(digest[:SHORT] for digest in digests)}"
                for name, digests in one["data"].items()
            )
            yield f"           {one['objective'].get('name')} on {data}, {one['started']}"


def _with(card: Mapping[str, Any]) -> Iterator[str]:
    device = card["device"]
    yield (
        f"machine    {device['name']}, {device['system']} {device['architecture']}, "
        f"{device['backend']} ({device['blas']}), {device['cores']} cores"
    )
    versions = ", ".join(f"{name} {held}" for name, held in card["versions"].items())
    yield f"versions   {versions}; {len(card.get('packages') or ())} packages in all"
    yield f"code       {(card.get('code') or 'not recorded')[:SHORT]}"


def _effects(card: Mapping[str, Any]) -> Iterator[str]:
    for one in card.get("effects") or ():
        base = "" if one["base"] is None else f", the bare model {_number(one['base'])}"
        yield (
            f"beside     {one['set']} {one['metric']}: {_number(one['value'])} "
            f"{one['unit']}{base}"
        )


def _log(record: Mapping[str, Any]) -> Iterator[str]:
    for event in record["events"]:
        step = event.get("step", event.get("steps"))
        after = "" if step is None else f" after step {step}"
        why = f": {event['why']}" if "why" in event else ""
        yield f"{event['time']}  {event['event']}{after}{why}"
    yield f"seal       {record['seal']}"


def _hashes(held: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {digest[:SHORT]}" for name, digest in held.items())


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "unknown"
