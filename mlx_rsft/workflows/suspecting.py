"""Rows whose answers look wrong: unlikely for the model, contradicted by neighbours."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rsft import files
from mlx_rsft.data import neighbours
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError

MOST_SHARE = 0.5
"""If more rows than this are contradicted, neighbours tell nothing about these data."""
LEAST_LIKELY = 0.05
"""Share of the rows that are suspect where only the model can be asked."""
COLUMNS = (
    "where",
    "id",
    "prompt",
    "answer",
    "corrected",
    "neighbours_say",
    "neighbour",
    "contradiction",
    "mean_p",
)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row that someone should look at.

    Attributes:
        doubt: What it is ranked by; no unit.
        contradiction: 0: the nearest rows answer alike, 1: nothing in common; None if
            no row is near.
        surprise: NLL above that of similar answers, nats per token.
        mean_p: Mean probability of the answer's tokens.
        neighbours_say: The answer that the nearest rows have most in common.
        neighbour: Where that one stands.
    """

    where: str
    id: str
    tags: tuple[str, ...]
    doubt: float
    contradiction: float | None
    surprise: float
    mean_p: float
    prompt: str
    answer: str
    neighbours_say: str
    neighbour: str


def suspects(
    rows: Sequence[Example], logp: Sequence[np.ndarray], tokenizer: Any
) -> tuple[list[Suspect], bool]:
    """The suspect rows, the worst first; and whether neighbours could be asked.

    Args:
        rows: The rows that are compared with each other.
        logp: The log-probabilities of each row's supervised tokens, nats.
        tokenizer: Turns prompts into text.
    """
    if len(rows) < 2:
        return [], False
    prompts = [row.prompt for row in rows]
    answers = [row.tokens[row.spans[-1][0] : row.spans[-1][1]] for row in rows]
    judged = neighbours.judge(prompts, answers)
    nll = np.array([-float(values.mean()) for values in logp])
    surprised = neighbours.surprise(nll, judged.answers_alike)
    contradicted = judged.contradicted
    can_compare = bool(
        contradicted.mean() <= MOST_SHARE and not np.isnan(judged.contradiction).all()
    )
    if can_compare:
        doubt = neighbours.doubt(judged.contradiction, surprised)
        count = int(contradicted.sum())
        order = np.argsort(np.where(contradicted, -doubt, np.inf), kind="stable")
    else:
        doubt, count = surprised, round(LEAST_LIKELY * len(rows))
        order = np.argsort(-doubt, kind="stable")
    found: list[Suspect] = []
    for place in order[:count].tolist():
        row, other = rows[place], rows[int(judged.spokesman[place])]
        said = float(judged.contradiction[place])
        found.append(
            Suspect(
                where=row.where,
                id=row.id,
                tags=row.tags,
                doubt=float(doubt[place]),
                contradiction=None if np.isnan(said) else said,
                surprise=float(surprised[place]),
                mean_p=float(np.exp(logp[place].astype(np.float64)).mean()),
                prompt=tokenizer.decode(list(row.prompt), skip_special_tokens=True),
                answer=row.answer,
                neighbours_say=other.answer if can_compare else "",
                neighbour=other.where if can_compare else "",
            )
        )
    return found, can_compare


def save(found: Sequence[Suspect], path: Path) -> None:
    """Write suspects as a table for a spreadsheet, with an empty column to fill in.

    Raises:
        ConfigError: If it cannot be written there.
    """
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for suspect in found:
        cells = {name: getattr(suspect, name, "") for name in COLUMNS}
        cells["mean_p"] = f"{suspect.mean_p:.4f}"
        if suspect.contradiction is not None:
            cells["contradiction"] = f"{suspect.contradiction:.2f}"
        table.writerow([cells[name] for name in COLUMNS])
    try:
        files.write_text(path, "\ufeff" + text.getvalue())  # so that Excel reads UTF-8
    except OSError as problem:
        raise ConfigError(
            f"The table cannot be written ({problem.strerror or problem}).",
            where=str(path),
        ) from None
