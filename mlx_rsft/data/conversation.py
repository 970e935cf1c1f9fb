"""The data's stations: row, conversation, example, batch.

Shapes: B rows, T positions, N supervised positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it stands in a file, with its place ``file:line``."""

    record: Mapping[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks, and the text.

    Attributes:
        extra: What templates know beside role and content, such as ``tool_calls``.
        trained: Whether an assistant turn is to be learned.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trained: bool = True

    def as_template(self) -> dict[str, Any]:
        """The turn as chat templates take it."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row's turns, or a plain text that is no conversation.

    Attributes:
        messages: The turns; empty for a plain text.
        text: The plain text; empty for a conversation.
        weight: How much the row counts, above 0; others count 1.
        tools: What the model was told it may call, in the template's form.
        choices: Answers to choose from, for multiple choice.
    """

    messages: tuple[Message, ...]
    where: str
    id: str = ""
    tags: tuple[str, ...] = ()
    text: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    weight: float = 1.0
    choices: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """What the row says, wherever it stands and whatever it is called."""
        said = {
            "messages": [asdict(turn) for turn in self.messages],
            "text": self.text,
            "tools": self.tools,
            "weight": self.weight,
            "tags": self.tags,
            "choices": self.choices,
        }
        text = json.dumps(said, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    """A row as tokens.

    Attributes:
        tokens: The whole row.
        spans: Half-open ranges of supervised tokens, one per trained turn, each with
            its end-of-turn token; in order, none starting at 0.
        where: ``file:line``.
        answer: The text of the last assistant turn.
        weight: How much the row counts, above 0; others count 1.
        choices: Answers to choose from, for multiple choice.
        row_sha256: Of the row it was made of.
    """

    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    where: str
    answer: str = ""
    id: str = ""
    tags: tuple[str, ...] = field(default=())
    weight: float = 1.0
    choices: tuple[str, ...] = ()
    row_sha256: str = ""

    @property
    def key(self) -> bytes:
        """What the row is, whoever holds it: equal for equal tokens and spans."""
        content = np.array([*self.tokens, -1, *sum(self.spans, ())], np.int32)
        return hashlib.blake2b(content.tobytes(), digest_size=KEY_BYTES).digest()

    @property
    def num_supervised(self) -> int:
        return sum(end - start for start, end in self.spans)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens before the last supervised turn."""
        return self.tokens[: self.spans[-1][0]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to one width, and where their supervised tokens are.

    Attributes:
        tokens_BT: int32; padding is at the right, so no real token attends to it.
        rows_N: Flat index ``b * T + t`` of each position that predicts a supervised
            token (the position before it).
        targets_N: That token.
        num_tokens: Real tokens, padding left out.
        counts: Supervised tokens of each row.
    """

    tokens_BT: mx.array
    rows_N: mx.array
    targets_N: mx.array
    num_tokens: int
    counts: tuple[int, ...]
