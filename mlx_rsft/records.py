"""What a run writes down: one typed record per step and per evaluation, as JSON lines.

Losses are nats per supervised token. A value that is not finite is written as null,
so that every line is standard JSON.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.errors import RunError

OF_THE_HOUR = ("tokens_per_s", "peak_bytes", "paused")
"""What of a step is no result: a run that repeats another has its own."""


@dataclass(frozen=True, slots=True)
class RowWeights:
    """What the rows of a step weighed, as one line of ``weights.jsonl``; all by row.

    Attributes:
        rows: Numbers of the examples, from 0.
        weight: Mean weight of the objective over the row's tokens; 1 under plain SFT.
        push: Sum of ``weight (1 - p)`` over them, the weight of the row included: half
            the L1 norm of the gradient at the logits, an anchor left out.
        p: Mean probability of its tokens.
    """

    rows: Sequence[int] = ()
    weight: Sequence[float] = ()
    push: Sequence[float] = ()
    p: Sequence[float] = ()

    def as_record(self) -> dict[str, list[Any]]:
        """Four digits of each: enough to rank by."""
        return {
            "rows": list(self.rows),
            **{
                name: [float(f"{value:.4g}") for value in getattr(self, name)]
                for name in ("weight", "push", "p")
            },
        }


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step, as one line of ``steps.jsonl``.

    Attributes:
        loss: Objective over its normaliser, nats; not comparable across objectives.
        nll: True negative log-likelihood per supervised token, nats.
        mean_p: Mean probability of the supervised tokens.
        ess: Effective sample size of the weights as a share of the tokens, 0 to 1.
        weight: Sum of the weights of its tokens; ``tokens`` under plain SFT.
        tokens: Supervised tokens of the step.
        grad_norm: Global gradient norm before clipping.
        tokens_per_s: Real (unpadded) tokens computed per second.
        peak_bytes: Peak memory held by mlx during the step.
        skipped: The update was left out, because loss or gradient was not finite.
        paused: How long the run waited before it and why; empty if it did not.
        rows: What its rows weighed; in a file of its own.
    """

    step: int
    loss: float
    nll: float
    mean_p: float
    ess: float
    weight: float
    tokens: int
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    peak_bytes: int
    skipped: bool = False
    note: str = ""
    paused: str = ""
    rows: RowWeights = RowWeights()

    def as_record(self) -> dict[str, Any]:
        record = asdict(self)
        del record["rows"]
        if not self.skipped:
            del record["skipped"]
        for said in ("note", "paused"):
            if not record[said]:
                del record[said]
        return record


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value with its unit, sample size and 95 % interval."""

    value: float
    unit: str
    n: int
    stderr: float
    low: float
    high: float

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """The metrics of one split; ``tokens`` counts supervised tokens."""

    rows: int
    tokens: int
    metrics: Mapping[str, Metric]

    def as_record(self) -> dict[str, Any]:
        metrics = {name: metric.as_record() for name, metric in self.metrics.items()}
        return {"rows": self.rows, "tokens": self.tokens, "metrics": metrics}


def finite(record: object) -> object:
    """The record with every number that is not finite replaced by None."""
    if isinstance(record, float) and not math.isfinite(record):
        return None
    if isinstance(record, Mapping):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [finite(value) for value in record]
    return record


def as_line(record: Mapping[str, Any]) -> str:
    """One record as one line of standard JSON, newline included."""
    return json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record to a JSON-lines file; each line is whole as soon as it is there."""
    with path.open("a", encoding="utf-8") as file:
        file.write(as_line(record))


def cut(path: Path, count: int) -> None:
    """Leave the first ``count`` lines of a JSON-lines file, and nothing after them.

    Raises:
        RunError: If there are fewer whole lines; the file is then as it was.
    """
    held = path.read_bytes() if path.exists() else b""
    lines = held.split(b"\n")[:-1]
    if len(lines) < count:
        raise RunError(
            f"There are {len(lines)} whole lines where {count} were written.",
            where=str(path),
            hint="Put the file back as it was; without it the run cannot go on.",
        )
    if path.exists():
        os.truncate(path, sum(len(line) + 1 for line in lines[:count]))


def held_lines(path: Path) -> list[dict[str, Any]]:
    """The same as a list; an empty one if there is no file yet."""
    return list(read_lines(path)) if path.exists() else []


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file that this package wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
