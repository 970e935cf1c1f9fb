"""What in the rows would hurt training without a word: repeats, leaks, contradictions.

Looks at texts alone, so that it needs no model. Two rows are near each other if they
differ in capitals, punctuation, white space or character width only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlx_rsft.data.conversation import Conversation
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import DataError

HARMLESS = ("duplicate",)
"""Kinds of findings that waste time but mislead nobody."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, with its place.

    Attributes:
        kind: ``malformed``, ``template``, ``too long``, ``duplicate``,
            ``contradiction``, ``leak`` or ``near leak``.
    """

    kind: str
    where: str
    message: str

    @property
    def hurts(self) -> bool:
        """Whether training on it would silently do harm."""
        return self.kind not in HARMLESS


def from_error(kind: str, problem: DataError) -> Finding:
    """A row that cannot be used, as a finding."""
    return Finding(kind, problem.where, f"{problem.message} {problem.hint}".strip())


def findings(splits: Mapping[str, Sequence[Conversation]]) -> list[Finding]:
    """Repeats and contradictions in each split, and leaks from train to the others."""
    found: list[Finding] = []
    for rows in splits.values():
        found += _repeats(rows)
    for name, rows in splits.items():
        if name != TRAIN and TRAIN in splits:
            found += _leaks(splits[TRAIN], rows)
    return found


def counts(found: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each kind, most first."""
    return dict(Counter(finding.kind for finding in found).most_common())


def question(row: Conversation) -> str:
    """What the model is given: all turns before the last reply."""
    turns = row.messages[:-1]
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns) or row.text


def _answer(row: Conversation) -> str:
    return row.messages[-1].content.strip() if row.messages else ""


def _repeats(rows: Sequence[Conversation]) -> list[Finding]:
    seen: dict[str, tuple[str, str]] = {}
    found: list[Finding] = []
    for row in rows:
        asked, answer = question(row), _answer(row)
        if asked not in seen:
            seen[asked] = (answer, row.where)
            continue
        first, where = seen[asked]
        if first == answer:
            found.append(Finding("duplicate", row.where, f"The same row as {where}."))
        else:
            message = f"The same question as {where} with another answer."
            found.append(Finding("contradiction", row.where, message))
    return found


def _leaks(
    train: Sequence[Conversation], test: Sequence[Conversation]
) -> list[Finding]:
    found: list[Finding] = []
    exact, near = _places(train, question), _places(train, _near)
    for row in test:
        if where := exact.get(question(row)):
            message = f"The same question as {where}, which is trained on."
            found.append(Finding("leak", row.where, message))
        elif where := near.get(_near(row)):
            message = f"Almost the question of {where}, which is trained on."
            found.append(Finding("near leak", row.where, message))
    return found


def _places(
    rows: Sequence[Conversation], key: Callable[[Conversation], str]
) -> dict[str, str]:
    return {key(row): row.where for row in reversed(rows)}


def _near(row: Conversation) -> str:
    plain = unicodedata.normalize("NFKC", question(row)).casefold()
    return re.sub(r"[\W_]+", " ", plain).strip()
