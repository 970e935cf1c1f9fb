"""A frozen suite: rows, metrics and tolerances in one sealed file.

WATCH/  suite.json     what is asked and how it is judged; never changed
        history.jsonl  one line per scoring, with what every row said
        drift.html     the same as a page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation, files, manifest
from mlx_rsft.config import Resolved
from mlx_rsft.data import formats
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.errors import ConfigError, RsftError, RunError, nearest, raise_together
from mlx_rsft.evaluation import Gauge, Sampling, gate
from mlx_rsft.workflows import assemble, rendering

FILE, HISTORY, PAGE = "suite.json", "history.jsonl", "drift.html"
FORMAT = 1
SEAL = "sha256"
DEFAULT = ("exact_match", "nll")
"""What is watched where no metric is named."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What every model is asked alike.

    Attributes:
        rows: By split.
        metrics: As they are spelled.
        asked: How answers are made and rows are read: settings by name.
        tolerance: Loss that is no reason to alarm, of metrics that have one of their own.
        limits: Values that a metric must not be shown to be beyond.
        sha256: Of all that.
    """

    rows: Mapping[str, Sequence[Conversation]]
    metrics: Sequence[str]
    asked: Mapping[str, Any]
    tolerance: Mapping[str, float]
    limits: Mapping[str, float]
    sha256: str

    def gauges(self) -> dict[str, Gauge]:
        """The metrics, ready to measure."""
        asked = self.asked
        sampling = Sampling(asked["samples"], asked["temperature"], asked["seed"])
        return evaluation.choose(self.metrics, sampling)


def freeze(
    resolved: Resolved,
    out: Path,
    tolerance: Mapping[str, float],
    limits: Mapping[str, float],
) -> Suite:
    """Write a suite from the chosen splits of the data.

    Raises:
        ConfigError: If a tolerance or a limit is of no watched metric.
        DataError: With every row that cannot be read.
        RunError: If a suite is there already.
    """
    configuration.require(resolved.config, "data.source")
    config = resolved.config
    chosen = configuration.changed(
        resolved,
        {"evaluation.metrics": config.evaluation.metrics or DEFAULT},
        "default",
    ).config
    _check_named(assemble.metrics(chosen), tolerance, limits)
    if (out / FILE).exists():
        raise RunError(
            "A suite is there already, and is never changed.",
            where=str(out),
            hint="Name another folder.",
        )
    record = {
        "format": FORMAT,
        "created": manifest.now(),
        "rows": {
            name: [_row(row) for row in _read(paths, resolved)]
            for name, paths in assemble.evaluation_paths(chosen).items()
        },
        "metrics": list(chosen.evaluation.metrics),
        "asked": {
            "max_tokens": chosen.evaluation.max_tokens,
            "samples": chosen.evaluation.samples,
            "temperature": chosen.evaluation.temperature,
            "seed": chosen.seed,
            "train_on": chosen.data.train_on,
            "max_length": chosen.data.max_length,
        },
        "tolerance": dict(tolerance),
        "limits": dict(limits),
    }
    files.write_json(out / FILE, record | {SEAL: _seal(record)})
    return read(out)


def read(folder: Path) -> Suite:
    """The suite of a folder.

    Raises:
        RunError: If there is none, or it is not as it was frozen.
    """
    path = folder / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sound = record.pop(SEAL) == _seal(record) and record["format"] == FORMAT
    except OSError:
        raise RunError(
            "There is no suite.",
            where=str(folder),
            hint=f"Make one: mlx-rsft watch freeze --data DIR --out {folder}",
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        sound, record = False, {}
    if not sound:
        raise RunError(
            "The suite is not as it was frozen, so nothing can be compared by it.",
            where=str(path),
            hint="Put the file back, or freeze another suite in a new folder.",
        )
    rows = {
        name: [_conversation(row, f"{name}:{n}") for n, row in enumerate(held, start=1)]
        for name, held in record["rows"].items()
    }
    kept = {key: record[key] for key in ("metrics", "asked", "tolerance", "limits")}
    return Suite(rows, **kept, sha256=_seal(record))


def _check_named(
    gauges: Mapping[str, Gauge],
    tolerance: Mapping[str, float],
    limits: Mapping[str, float],
) -> None:
    problems: list[RsftError] = []
    for flag, given in (("--tolerance", tolerance), ("--limit", limits)):
        for name in given:
            if name not in gauges:
                hint = nearest(name, gauges)
                problems.append(
                    ConfigError(f"{name!r} is not watched.", where=flag, hint=hint)
                )
            elif not gate.gates(gauges[name]):
                said = f"Neither more nor less of {name} is worse."
                problems.append(ConfigError(said, where=flag))
    raise_together(problems)


def _read(paths: Sequence[Path], resolved: Resolved) -> list[Conversation]:
    rows: list[Conversation] = []
    problems: list[RsftError] = []
    for row in formats.split_conversations(paths, *rendering.reading(resolved.config)):
        if isinstance(row, Conversation):
            rows.append(row)
        else:
            problems.append(row)
    raise_together(problems)
    return rows


def _row(row: Conversation) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "where"}


def _conversation(row: Mapping[str, Any], where: str) -> Conversation:
    lists = {key: tuple(row[key]) for key in ("tags", "tools", "choices")}
    messages = tuple(Message(**turn) for turn in row["messages"])
    own: dict[str, Any] = {**row, **lists, "messages": messages, "where": where}
    return Conversation(**own)


def _seal(record: Mapping[str, Any]) -> str:
    return manifest.text_sha256(json.dumps(record, sort_keys=True))
