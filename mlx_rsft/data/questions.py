"""Rows that are to be answered: any format of data, with or without an answer in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_rsft.data import chat, formats, source
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.formats import FORMATS, Format
from mlx_rsft.errors import ConfigError, DataError, nearest, raise_together


def _without(answer: str, name: str) -> Format:
    """A format whose rows need no answer under its key."""
    whole = FORMATS[name]

    def parse(record: Mapping[str, Any]) -> tuple[Message, ...] | str:
        given = record.get(answer)
        return whole.parse({**record, answer: "" if given is None else given})

    return Format(tuple(key for key in whole.keys if key != answer), parse)


QUESTIONS: dict[str, Format] = {
    **FORMATS,
    "prompt-completion": _without("completion", "prompt-completion"),
    "alpaca": _without("output", "alpaca"),
}


def read(
    path: Path,
    name: str = AUTO,
    columns: Mapping[str, str] | None = None,
    encoding: str = AUTO,
) -> list[Conversation]:
    """Every question of a file: the turns up to its last reply, or a text to go on with.

    Args:
        path: The file.
        name: The format all rows have; ``auto`` tells it from each row's keys.
        columns: New name by old name of columns.
        encoding: Of the file's text.

    Raises:
        ConfigError: If there is no such format or encoding.
        DataError: With all rows that ask nothing, at once.
    """
    if name not in (AUTO, *QUESTIONS):
        raise ConfigError(
            f"There is no data format {name!r}.",
            where="data.format",
            hint=nearest(name, [AUTO, *QUESTIONS]),
        )
    kinds = list(QUESTIONS.values()) if name == AUTO else [QUESTIONS[name]]
    found: list[Conversation] = []
    problems: list[DataError] = []
    for row in source.read(path, columns, encoding):
        try:
            if isinstance(row, DataError):
                raise row
            asked = formats.parse(row, kinds, _check)
            found.append(replace(asked, messages=_asked(asked.messages)))
        except DataError as problem:
            problems.append(problem)
    raise_together(problems)
    return found


def _asked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns before the last reply, where that is the last word."""
    answered = bool(messages) and messages[-1].role == "assistant"
    return tuple(messages[:-1] if answered else messages)


def _check(messages: Sequence[Message]) -> None:
    asked = _asked(messages)
    if not asked or asked[-1].role not in ("user", "tool"):
        raise chat.Unfit("no question", "no turn of the user asks for a reply")
