"""A run that goes on exactly: the same settings, rows and weights, or it is refused."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import manifest
from mlx_rsft.config import FLAG, Resolved
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import RsftError, RunError, raise_together
from mlx_rsft.keys import OPEN_TABLE, read
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.objectives import build
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.workflows import assemble, finished, starting
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.keeping import Held

HINT = "A run goes on as it began; for anything else begin one in another --run-dir."


def identity(resolved: Resolved, loaded: LoadedModel, splits: Splits) -> dict[str, Any]:
    """What decides a run: settings, and hashes of data files, rows and weights."""
    made = {
        "settings": _settings(configuration.as_toml(resolved)),
        "data": {
            name: {Path(path).name: digest for path, digest in hashes.items()}
            for name, hashes in splits.files.items()
        },
        "rows": {name: _rows_sha256(rows) for name, rows in splits.rows.items()},
        "model": loaded.weights() | starting.record(resolved.config),
        "versions": manifest.versions(),
    }
    return json.loads(json.dumps(made))


def find(path: Path) -> Held:
    """The run in a folder and its newest checkpoint, all of it whole.

    Raises:
        RunError: If there is no run, or it is done, or its checkpoint is damaged.
    """
    run = RunDir(path)
    try:
        card = finished.card(path)
    except (OSError, ValueError):
        raise RunError(
            "There is no run to go on with.",
            where=str(path),
            hint="Leave --resume out to begin one.",
        ) from None
    if card.get("finished"):
        raise RunError(
            "The run is finished; there is nothing to go on with.",
            where=str(path),
            hint="Begin another one with another --run-dir; this one stays as it is.",
        )
    there = checkpoint.found(run.checkpoints)
    if not there:
        raise RunError(
            "The run has no checkpoint to go on from.",
            where=str(path),
            hint="If it was cut off before its first step, remove it and begin again.",
        )
    return Held(run, card, checkpoint.read(there[-1]))


def settings(held: Held, given: Resolved) -> Resolved:
    """The settings of the run, with those given anew that change no result.

    Raises:
        RunError: With every setting that was given otherwise, or edited in the run.
        ConfigError: If the run's own cannot be read.
    """
    layer = configuration.from_file(held.run.config)
    now = _settings(held.run.config.read_text(encoding="utf-8"))
    was: dict[str, Any] = held.facts.identity["settings"]
    raise_together([*_changed(was, now, held.run.config)])
    own = configuration.resolve([layer])
    asked = _asked(given, probed=bool(held.card["probe"]))
    free = {key: value for key, value in asked.items() if _is_free(key)}
    bound = {key: value for key, value in asked.items() if not _is_free(key)}
    raise_together([*_changed({key: was.get(key) for key in bound}, bound, "")])
    return configuration.changed(own, free, FLAG)


def _asked(given: Resolved, *, probed: bool) -> dict[str, Any]:
    """What this call gives, by full name; ``auto`` asks for nothing of a probed run."""
    table = given.config.objective
    if "name" in table and not assemble.is_auto(given.config):
        table = build(table).as_table()
    elif probed:
        table = {}
    asked = {f"{OPEN_TABLE}.{key}": value for key, value in table.items()}
    for key in given.origins:
        if not key.startswith(f"{OPEN_TABLE}."):
            asked[key] = read(given.config, key)
    return json.loads(json.dumps(asked))


def check_same(held: Held, now: Mapping[str, Any]) -> None:
    """Compare the rows and weights at hand with those of the run.

    Raises:
        RunError: With everything that is another.
    """
    was = held.facts.identity
    problems: list[RsftError] = [
        *_other_files("data", was["data"], now["data"]),
        *_other_files("model", {"": _weights(was)}, {"": _weights(now)}),
    ]
    if not problems:
        problems = [
            *_other_values("rows", was["rows"], now["rows"]),
            *_other_values("model", was["model"], now["model"]),
            *_other_values("versions", was["versions"], now["versions"]),
        ]
    raise_together(problems)


def _weights(told: Mapping[str, Any]) -> dict[str, str]:
    model = told["model"]
    return model["sha256"] | model.get("init", {}).get("sha256", {})


def _settings(text: str) -> dict[str, Any]:
    """Every value by its full name, but for those that change no result."""
    flat: dict[str, Any] = {}
    for table, held in tomllib.loads(text).items():
        inside = held.items() if isinstance(held, dict) else [("", held)]
        flat |= {f"{table}.{key}".rstrip("."): value for key, value in inside}
    return {key: value for key, value in flat.items() if not _is_free(key)}


def _is_free(key: str) -> bool:
    table, _, name = key.partition(".")
    return (table, name) in finished.OUTCOME_FREE


def _changed(
    was: Mapping[str, Any], now: Mapping[str, Any], where: object
) -> Iterator[RsftError]:
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            yield RunError(
                f"{key} was {was.get(key)!r} and is now {now.get(key)!r}.",
                where=str(where),
                hint=HINT,
            )


def _other_files(
    what: str, was: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[RsftError]:
    for name in sorted({*was, *now}):
        old, new = was.get(name, {}), now.get(name, {})
        if list(old.values()) == list(new.values()):
            continue
        for file in sorted({*old, *new}):
            before, after = _short(old.get(file)), _short(new.get(file))
            if before != after:
                yield RunError(
                    f"{file} {f'of split {name} ' if name else ''}was {before} and is "
                    f"now {after}.",
                    where=what,
                    hint=HINT,
                )


def _other_values(
    what: str, was: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[RsftError]:
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key) and key not in ("init", "sha256"):
            yield RunError(
                f"{key} was {_short(was.get(key))} and is now {_short(now.get(key))}.",
                where=what,
                hint=HINT,
            )


def _short(value: object) -> str:
    text = str(value)
    return "absent" if value is None else text[:12] if len(text) == 64 else text


def _rows_sha256(rows: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.key + repr((row.weight, row.tags)).encode())
    return digest.hexdigest()
