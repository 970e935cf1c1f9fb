"""What a run made of its rows: which ones the objective damped, and which it heard.

Read from what every step noted of its rows. The texts come from the data where they lie,
each held against its salted hash; they are shown and written nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import records
from mlx_rsft.config import FLAG
from mlx_rsft.data import formats
from mlx_rsft.data.conversation import Conversation
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import ConfigError, RunError, nearest
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import assemble, finished, proving, rendering

NO_TAG = "(none)"
MOST = 5
"""Rows shown from each end."""


@dataclass(slots=True)
class Heard:
    """How a row was heard over the run, visit by visit.

    Attributes:
        steps: When it was trained on.
        weight: Its mean weight then.
        p: The mean probability of its tokens then.
        push: What it gave to the gradient, over all visits.
    """

    where: str
    sha256: list[str]
    steps: list[int] = field(default_factory=list[int])
    weight: list[float] = field(default_factory=list[float])
    p: list[float] = field(default_factory=list[float])
    push: float = 0.0

    @property
    def mean(self) -> float:
        """Its mean weight over training."""
        return sum(self.weight) / len(self.weight)


@dataclass(frozen=True, slots=True)
class Explained:
    """All rows that were trained on, the most damped first, and their texts."""

    card: Mapping[str, Any]
    heard: Sequence[Heard]
    texts: Mapping[str, Conversation]
    secret: str

    def as_record(self, most: int = MOST) -> dict[str, Any]:
        """The whole run, as ``--json`` prints it."""
        count = len(self.heard)
        return {
            "objective": self.card["objective"],
            "rows": count,
            "mean_weight": sum(one.mean for one in self.heard) / count,
            "tags": self._tags(),
            "most_damped": [self.row(one) for one in self.heard[:most]],
            "least_damped": [self.row(one) for one in self.heard[::-1][:most]],
        }

    def _tags(self) -> dict[str, dict[str, Any]]:
        """Rows, mean weight and share of the gradient of each tag."""
        by_tag: dict[str, list[Heard]] = {}
        for one in self.heard:
            row = self.texts.get(one.where)
            for tag in (row.tags if row else ()) or (NO_TAG,):
                by_tag.setdefault(tag, []).append(one)
        total = sum(one.push for one in self.heard) or 1.0
        return {
            tag: {
                "rows": len(held),
                "mean_weight": sum(one.mean for one in held) / len(held),
                "gradient": sum(one.push for one in held) / total,
            }
            for tag, held in sorted(by_tag.items())
        }

    def row(self, one: Heard) -> dict[str, Any]:
        """One row; its text is absent where the data are others now."""
        row = self.texts.get(one.where)
        told: dict[str, Any] = {
            "where": one.where,
            "mean_weight": one.mean,
            "rank": self.heard.index(one) + 1,
            "of": len(self.heard),
            "gradient": one.push / (sum(o.push for o in self.heard) or 1.0),
            "visits": len(one.steps),
            "first_p": one.p[0],
            "last_p": one.p[-1],
        }
        if row is None:
            return told
        turns = [turn.content for turn in row.messages]
        asked = "\n".join(turns[:-1])
        answer = turns[-1] if turns else row.text
        return {
            **told,
            "id": row.id,
            "tags": list(row.tags),
            "asked": asked,
            "answer": answer,
        }

    def one(self, name: str) -> dict[str, Any]:
        """The row of an id or a place, visit by visit, with what proves it was there.

        Raises:
            ConfigError: If no row that was trained on is called that.
        """
        known = {one.where: one for one in self.heard}
        ids = {
            row.id: known[at]
            for at, row in self.texts.items()
            if row.id and at in known
        }
        found = known.get(name) or ids.get(name)
        if found is None:
            raise ConfigError(
                f"No row that was trained on is {name!r}.",
                where="--row",
                hint=nearest(name, [*ids, *known]) if len(known) < 1000 else "",
            )
        visits = zip(found.steps, found.weight, found.p, strict=True)
        told = self.row(found) | {
            "steps": [{"step": s, "weight": w, "p": p} for s, w, p in visits]
        }
        if row := self.texts.get(found.where):
            salt = proving.salt_of(self.secret, row.sha256)
            told["proof"] = {"row": row.sha256, "salt": salt, "sha256": found.sha256[0]}
        return told


def explain(path: Path, data: str = "") -> Explained:
    """What a run made of its rows.

    Args:
        path: The run.
        data: Where its data are now, if they have moved.

    Raises:
        RunError: If it noted nothing of its rows.
        RsftError: If its data cannot be read.
    """
    run = RunDir(path)
    if not (run.weights.is_file() and run.rows.is_file()):
        raise RunError(
            "Nothing is noted of the rows.",
            where=str(path),
            hint="Name the folder of a run that has made a step; runs of before this "
            "was noted cannot be explained.",
        )
    heard = _heard(run)
    secret = run.salt.read_text(encoding="utf-8").strip()
    rows = _rows(run, data)
    own = {
        one.where: rows[one.where]
        for one in heard
        if one.where in rows
        and proving.digest(secret, rows[one.where].sha256) == one.sha256[0]
    }
    return Explained(finished.card(path), heard, own, secret)


def _heard(run: RunDir) -> list[Heard]:
    """Every row that was trained on, the most damped first."""
    made: dict[str, Heard] = {}
    places: list[Heard] = []
    for line in records.read_lines(run.rows):
        one = made.setdefault(line["where"], Heard(line["where"], []))
        one.sha256.append(line["sha256"])
        places.append(one)
    for line in records.read_lines(run.weights):
        figures = (line["rows"], line["weight"], line["push"], line["p"])
        for number, weight, push, p in zip(*figures, strict=True):
            if None not in (weight, push, p):
                one = places[number]
                one.steps.append(line["step"])
                one.weight.append(weight)
                one.p.append(p)
                one.push += push
    return sorted((one for one in made.values() if one.steps), key=lambda one: one.mean)


def _rows(run: RunDir, data: str) -> dict[str, Conversation]:
    """The training rows as they are now, by place."""
    resolved = configuration.resolve([configuration.from_file(run.config)])
    if data:
        resolved = configuration.changed(resolved, {"data.source": data}, FLAG)
    paths = assemble.training_paths(resolved.config)[TRAIN]
    found = formats.split_conversations(paths, *rendering.reading(resolved.config))
    return {
        proving.place(row.where): row for row in found if isinstance(row, Conversation)
    }
