"""A run that goes on exactly: the same settings, rows and weights, or it is refused."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import lanes, machine, manifest
from mlx_rsft.config import FLAG, Resolved
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, RsftError, RunError, raise_together
from mlx_rsft.keys import OPEN_TABLE, read
from mlx_rsft.models import recompute
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import build
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.workflows import assemble, caching, finished, starting
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.held import Held

HINT = "A run goes on as it began; for anything else begin one in another --run-dir."
LONGER = "To make a run longer: --resume --extend-to STEPS."
LENGTH = ("training.steps", "training.epochs")
SETTLED = ("training.grad_checkpoint", "training.trunk_cache")
"""Settings where ``auto`` asks for what the run has chosen."""


def settled(resolved: Resolved, split: SplitModel, trunk: Trunk | None) -> Resolved:
    """The settings with what ``auto`` has chosen, so that a run goes on with that.

    A later ``auto`` may choose otherwise, on a machine with other memory or for a longer
    run; and sums come in another order, so the bits would be others.
    """
    chosen: dict[str, object] = {}
    if resolved.config.training.grad_checkpoint == recompute.AUTO:
        chosen["training.grad_checkpoint"] = str(len(split.recomputed))
    if resolved.config.training.trunk_cache == caching.AUTO and trunk is None:
        chosen["training.trunk_cache"] = caching.OFF
    return configuration.changed(resolved, chosen, caching.AUTO)


def identity(
    resolved: Resolved,
    loaded: LoadedModel,
    splits: Splits,
    num_steps: int,
    num_ranks: int = 1,
) -> dict[str, Any]:
    """What decides a run: settings, ranks, and hashes of files, rows and weights."""
    made = {
        "steps": num_steps,
        "ranks": num_ranks,
        "settings": _settings(configuration.as_toml(resolved)),
        "data": {
            name: {Path(path).name: digest for path, digest in hashes.items()}
            for name, hashes in splits.files.items()
        },
        "rows": {name: _rows_sha256(rows) for name, rows in splits.rows.items()},
        "model": loaded.weights() | starting.record(resolved.config),
        # The parts of a batch that are computed at once decide the order of sums.
        "versions": manifest.versions()
        | {"backend": machine.backend(), "cores": str(lanes.count())},
    }
    return json.loads(json.dumps(made))


def find(path: Path, extend_to: int = 0) -> Held:
    """The run in a folder and its newest checkpoint, all of it whole.

    Args:
        path: The folder.
        extend_to: Steps that the run is to have now, done or not; 0: as many as before.

    Raises:
        RunError: If there is no run, or it is done, or something in it is damaged.
        ConfigError: If it is no shorter than that.
    """
    run = RunDir(path)
    if not run.manifest.exists():
        raise RunError(
            "There is no run to go on with.",
            where=str(path),
            hint="Leave --resume out to begin one.",
        )
    card = _card(run)
    there = checkpoint.found(run.checkpoints)
    facts = checkpoint.read(there[-1]) if there else None
    if facts and facts.run != manifest.record_sha256(card["identity"]):
        raise RunError("The checkpoint is one of another run.", where=str(there[-1]))
    if card["finished"] and not (extend_to and facts):
        raise RunError(
            "The run is finished; there is nothing to go on with.",
            where=str(path),
            hint="Make it longer with --extend-to STEPS, or begin another one with "
            "another --run-dir.",
        )
    held = Held(run, card, facts)
    if 0 < extend_to <= held.num_steps:
        raise ConfigError(
            f"The run has {held.num_steps} steps already.", where="--extend-to"
        )
    return replace(held, extend_to=extend_to)


def _card(run: RunDir) -> dict[str, Any]:
    try:
        card = manifest.unsealed(run.manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise RunError(
            "The manifest is damaged: it is not as it was written.",
            where=str(run.manifest),
            hint="Put it back as it was; without it the run cannot go on.",
        ) from None
    if not card["identity"]:
        raise RunError(
            "The run is part of a comparison or search.",
            where=str(run.path),
            hint="The command that began it goes on with it.",
        )
    return card


def settings(held: Held, given: Resolved) -> Resolved:
    """The settings of the run, with those given anew that change no result.

    Raises:
        RunError: With every setting that was given otherwise, or edited in the run.
        ConfigError: If the run's own cannot be read.
    """
    held.run.settle()
    own = configuration.resolve([configuration.from_file(held.run.config)])
    was: dict[str, Any] = held.card["identity"]["settings"]
    text = held.run.config.read_text(encoding="utf-8")
    raise_together([*_changed(was, _settings(text), held.run.config)])
    if manifest.text_sha256(text) != held.card["config_sha256"]:
        raise RunError(
            "The settings are not as they were written.",
            where=str(held.run.config),
            hint="Put the file back as it was.",
        )
    if held.num_steps != held.card["identity"]["steps"]:
        longer = {LENGTH[0]: held.num_steps}
        own, was = configuration.changed(own, longer, "--extend-to"), was | longer
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
        value = None if key.startswith(f"{OPEN_TABLE}.") else read(given.config, key)
        if value is not None and not (key in SETTLED and value == caching.AUTO):
            asked[key] = value
    return json.loads(json.dumps(asked))


def check_same(held: Held, now: Mapping[str, Any]) -> None:
    """Compare the rows and weights at hand with those of the run.

    Raises:
        RunError: With everything that is another.
    """
    was = held.card["identity"]
    problems: list[RsftError] = [
        *_other_ranks(was.get("ranks", 1), now["ranks"]),
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


def _other_ranks(was: int, now: int) -> Iterator[RsftError]:
    if was != now:
        yield RunError(
            f"It was begun by {was} rank{'s' * (was > 1)} and is now gone on with by "
            f"{now}.",
            where="ranks",
            hint=f"Launch as many as before (mlx.launch -n {was}): with more or fewer, "
            "sums come in another order.",
        )


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
    return (table, name) in finished.OUTCOME_FREE and key not in SETTLED


def _changed(
    was: Mapping[str, Any], now: Mapping[str, Any], where: object
) -> Iterator[RsftError]:
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            yield RunError(
                f"{key} was {was.get(key)!r} and is now {now.get(key)!r}.",
                where=str(where),
                hint=LONGER if key in LENGTH else HINT,
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
