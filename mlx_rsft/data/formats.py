"""How people write a conversation down, one entry per format.

A format says by its keys whether a row is its own, and turns that row into messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.data import source
from mlx_rsft.data.conversation import Conversation, Message, Row
from mlx_rsft.errors import DataError, RsftError, raise_together

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a row.

    Attributes:
        keys: The keys that a row of this format has.
        parse: Its messages; raises ValueError with what is wrong.
    """

    keys: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], tuple[Message, ...]]


def _messages(record: Mapping[str, Any]) -> tuple[Message, ...]:
    turns = record["messages"]
    if not isinstance(turns, list) or not turns:
        raise ValueError('"messages" is not a list of turns')
    return tuple(_message(turn, place) for place, turn in enumerate(turns, start=1))


def _message(turn: object, place: int) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"message {place} is not an object")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise ValueError(
            f"message {place} has the role {role!r}, expected {', '.join(ROLES)}"
        )
    if not isinstance(content, str):
        raise ValueError(f"message {place} has no text in its content")
    return Message(role, content)


def _prompt_completion(record: Mapping[str, Any]) -> tuple[Message, ...]:
    for key in ("prompt", "completion"):
        if not isinstance(record[key], str):
            raise ValueError(f'"{key}" is not text')
    return (
        Message("user", record["prompt"]),
        Message("assistant", record["completion"]),
    )


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages),
    "prompt-completion": Format(("prompt", "completion"), _prompt_completion),
}


def read_conversations(path: Path) -> list[Conversation]:
    """Every conversation of a file.

    Raises:
        DataError: With all lines that are not JSON and all rows that do not parse.
    """
    conversations: list[Conversation] = []
    problems: list[RsftError] = []
    for row in source.read(path):
        try:
            if isinstance(row, DataError):
                raise row
            conversations.append(parse(row))
        except DataError as problem:
            problems.append(problem)
    raise_together(problems)
    return conversations


def parse(row: Row) -> Conversation:
    """The conversation in a row, whichever format it has.

    Raises:
        DataError: If no format or more than one fits, or the turns are unusable.
    """
    fitting = [
        kind for kind in FORMATS.values() if all(key in row.record for key in kind.keys)
    ]
    if len(fitting) != 1:
        raise DataError(
            f"The row fits {'no' if not fitting else 'more than one'} format; its keys "
            f"are {', '.join(map(repr, row.record)) or 'none'}.",
            where=row.where,
            hint='Give it "messages", or "prompt" and "completion".',
        )
    try:
        messages = fitting[0].parse(row.record)
        _check_turns(messages)
        return Conversation(
            messages, row.where, str(row.record.get("id", "")), _tags(row.record)
        )
    except ValueError as problem:
        raise DataError(f"{str(problem).capitalize()}.", where=row.where) from None


def _tags(record: Mapping[str, Any]) -> tuple[str, ...]:
    tags = record.get("tags", [])
    tags = [tags] if isinstance(tags, str) else tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('"tags" is not a list of names')
    return tuple(tags)


def _check_turns(messages: tuple[Message, ...]) -> None:
    last = messages[-1]
    if last.role != "assistant":
        raise ValueError(
            f'the last message is from "{last.role}"; training needs an assistant '
            "reply there. Drop the row or add one"
        )
    for place, message in enumerate(messages, start=1):
        if message.role == "assistant" and not message.content.strip():
            raise ValueError(f"message {place}, an assistant reply, is empty")
