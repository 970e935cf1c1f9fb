"""What to do after a pilot: commands that can be typed as they stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.config import Resolved
from mlx_rsft.data import formats, source
from mlx_rsft.data.conversation import Conversation
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.data.splits import is_validation
from mlx_rsft.evaluation.verdict import GO, NO_GO
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import assemble, rendering, sized

SETTINGS = "settings.toml"


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do.

    Attributes:
        why: What for, in a sentence.
        arguments: Of the program.
    """

    why: str
    arguments: tuple[str, ...]


def steps(resolved: Resolved, record: Mapping[str, Any], out: Path) -> list[Step]:
    """What to do next, the nearest first.

    Args:
        resolved: The settings of the pilot.
        record: What it found.
        out: Its folder, with the settings in ``SETTINGS``.
    """
    given = ("--config", str(out / SETTINGS))
    adapter = ("--adapter", str(RunDir(Path(record["run"])).adapter))
    found = [_try(resolved, given, adapter)]
    if record["verdict"] == GO:
        why = f"Train with {record['winner']}, as long as was wanted:"
        found.append(_train(why, given, record["winner"], out))
        found.append(Step("Serve the winner:", ("serve", *given, *adapter)))
    elif record["verdict"] == NO_GO:
        why = "Stay with what was there before:"
        found.append(_train(why, given, record["baseline"], out))
        found += _search(resolved, given, out)
    else:
        found += _open(given, record, out)
    return [*found, *_suspects(resolved, record, out)]


def _try(resolved: Resolved, given: tuple[str, ...], adapter: tuple[str, ...]) -> Step:
    question = _question(resolved)
    if question:
        ask = ("generate", *given, *adapter, "--prompt", question)
        return Step("Ask the winner a question that it was tested on:", ask)
    return Step("Talk to the winner:", ("chat", *given, *adapter))


def _question(resolved: Resolved) -> str:
    """The first question of a test split, the last one of the splits; empty if none fits."""
    found = source.find_splits(Path(resolved.config.data.source).expanduser())
    tests = [name for name in found if name != TRAIN and not is_validation(name)]
    paths = found[tests[-1]]
    row = next(
        iter(formats.split_conversations(paths, *rendering.reading(resolved.config)))
    )
    if not isinstance(row, Conversation) or row.tools:
        return ""
    first = row.messages[:1]
    alone = len(row.messages) == 2 and all(turn.role == "user" for turn in first)
    return first[0].content if alone else ""


def _train(why: str, given: tuple[str, ...], objective: str, out: Path) -> Step:
    run = str(out / "trained")
    return Step(why, ("train", *given, "--objective", objective, "--run-dir", run))


def _search(resolved: Resolved, given: tuple[str, ...], out: Path) -> Iterator[Step]:
    """Where there is something to choose by."""
    if VALID in assemble.validation_paths(resolved.config):
        why = "Or look for settings that do better, by the valid splits:"
        yield Step(why, ("search", *given, "--out", str(out / "searched")))


def _open(
    given: tuple[str, ...], record: Mapping[str, Any], out: Path
) -> Iterator[Step]:
    wanted = record["spent_seconds"] + record["wanted"]["seconds"]
    minutes = max(record["minutes"], math.ceil(wanted / sized.SHARE / 60))
    again = ("pilot", *given, "--minutes", f"{minutes:g}")
    lacks = record["missing"]
    if lacks and lacks["more"]:
        why = f"Add about {lacks['more']:,} rows to the split {lacks['split']}, then:"
    elif record["size"] != record["wanted"]:
        why = "Give it the time for every arm, seed and step that was left out:"
    else:
        why = "Add rows to the test splits, then:"
    yield Step(why, (*again, "--out", f"{out}-again"))


def _suspects(
    resolved: Resolved, record: Mapping[str, Any], out: Path
) -> Iterator[Step]:
    paths = assemble.training_paths(resolved.config)[TRAIN]
    count = record["probe"]["suspects"]
    if count and len(paths) == 1:
        suspects = ("--suspects", str(out / sized.SUSPECTS))
        made = ("--out", str(out / "fixed" / "train.jsonl"))
        why = f"Correct the {count} rows that look mislabelled, then:"
        yield Step(why, ("data", "fix", str(paths[0]), *suspects, *made))
