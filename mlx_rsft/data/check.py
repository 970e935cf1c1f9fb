"""What in the rows would hurt training without a word: repeats, leaks, contradictions.

Looks at texts alone, so that it needs no model, and keeps hashes, so that the rows of a
file of any size take a few hundred bytes each. Two questions are near each other if they
differ in capitals, punctuation, white space or character width only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlx_rsft.data.conversation import Conversation
from mlx_rsft.errors import DataError

HARMLESS = ("duplicate",)
"""Kinds of findings that waste time but mislead nobody."""

MISREAD = re.compile(
    "\ufffd"  # a decoder gave up here
    "|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac"  # UTF-8 that was read as Latin text
    "|[\u7e3a\u7e67\u7e5d].[\u7e3a\u7e67\u7e5d]"  # UTF-8 that was read as Shift_JIS
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # control characters
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, with its place.

    Attributes:
        kind: ``malformed``, ``empty answer``, ``role order``, ``nothing trained``,
            ``template``, ``too long``, ``encoding``, ``duplicate``, ``contradiction``,
            ``leak`` or ``near leak``.
    """

    kind: str
    where: str
    message: str

    @property
    def hurts(self) -> bool:
        """Whether training on it would silently do harm."""
        return self.kind not in HARMLESS


def from_error(kind: str, problem: DataError) -> Finding:
    """A row that cannot be used, as a finding; of this kind unless it names its own."""
    message = f"{problem.message} {problem.hint}".strip()
    return Finding(problem.fault or kind, problem.where, message)


def counts(found: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each kind, most first."""
    return dict(Counter(finding.kind for finding in found).most_common())


class Watch:
    """Looks at the rows of one split, one after another.

    Args:
        train: The watch that has seen the rows to train on; None if this is it.
    """

    def __init__(self, train: Watch | None = None) -> None:
        self._train = train
        self._rows: dict[bytes, tuple[bytes, str]] = {}
        self._near: dict[bytes, str] = {}

    def look(self, row: Conversation) -> Iterator[Finding]:
        """What this row repeats, contradicts or gives away, and what of it is garbled."""
        asked, near = _digest(question(row)), _digest(plain(question(row)))
        answer = _digest(_answer(row))
        yield from self._repeat(row, asked, answer)
        if self._train:
            yield from self._train.leaks(row, asked, near)
        if found := MISREAD.search(f"{question(row)}\n{_answer(row)}"):
            yield Finding(
                "encoding",
                row.where,
                f"The text looks misread: it has {found[0]!r}. Check --encoding, or "
                "export the file as UTF-8.",
            )
        self._rows.setdefault(asked, (answer, row.where))
        self._near.setdefault(near, row.where)

    def _repeat(
        self, row: Conversation, asked: bytes, answer: bytes
    ) -> Iterator[Finding]:
        first, where = self._rows.get(asked, (b"", ""))
        if first == answer:
            yield Finding("duplicate", row.where, f"The same row as {where}.")
        elif where:
            message = f"The same question as {where} with another answer."
            yield Finding("contradiction", row.where, message)

    def leaks(self, row: Conversation, asked: bytes, near: bytes) -> Iterator[Finding]:
        """Whether a row of another split asks what was seen here."""
        if asked in self._rows:
            message = (
                f"The same question as {self._rows[asked][1]}, which is trained on."
            )
            yield Finding("leak", row.where, message)
        elif near in self._near:
            message = f"Almost the question of {self._near[near]}, which is trained on."
            yield Finding("near leak", row.where, message)


def question(row: Conversation) -> str:
    """What the model is given: all turns before the last reply."""
    turns = row.messages[:-1]
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns) or row.text


def plain(text: str) -> str:
    """A text without what does not tell two questions apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()


def _answer(row: Conversation) -> str:
    return row.messages[-1].content.strip() if row.messages else ""


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
