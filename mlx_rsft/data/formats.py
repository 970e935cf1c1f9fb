"""How people write a conversation down, one entry per format.

A format says by its keys whether a row is its own, and turns that row into messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.data import chat, source
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Conversation, Message, Row
from mlx_rsft.errors import ConfigError, DataError, nearest, raise_together

Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a row.

    Attributes:
        keys: The keys that a row of this format has.
        parse: Its turns, or its plain text; raises ValueError with what is wrong.
    """

    keys: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Turns | str]


def _messages(record: Mapping[str, Any]) -> Turns:
    return chat.turns(record["messages"], "messages")


def _prompt_completion(record: Mapping[str, Any]) -> Turns:
    return (
        *_side(record, "prompt", "user"),
        *_side(record, "completion", "assistant"),
    )


def _side(record: Mapping[str, Any], key: str, role: str) -> Turns:
    """One side of a pair: a text, or a list of messages."""
    value = record[key]
    if isinstance(value, str):
        return (Message(role, value),)
    if isinstance(value, list):
        return chat.turns(value, key)
    raise ValueError(f'"{key}" is neither text nor a list of messages')


def _text(record: Mapping[str, Any]) -> str:
    return _string(record, "text")


def _alpaca(record: Mapping[str, Any]) -> Turns:
    question = _string(record, "instruction")
    if record.get("input"):
        question = f"{question}\n\n{_string(record, 'input')}"
    answer = Message("assistant", _string(record, "output"))
    return (*_system(record), Message("user", question), answer)


def _sharegpt(record: Mapping[str, Any]) -> Turns:
    return (*_system(record), *chat.sharegpt_turns(record["conversations"]))


def _system(record: Mapping[str, Any]) -> Turns:
    given = record.get("system")
    return (Message("system", _string(record, "system")),) if given else ()


def _string(record: Mapping[str, Any], key: str) -> str:
    if not isinstance(record[key], str):
        raise ValueError(f'"{key}" is not text')
    return record[key]


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages),
    "prompt-completion": Format(("prompt", "completion"), _prompt_completion),
    "alpaca": Format(("instruction", "output"), _alpaca),
    "sharegpt": Format(("conversations",), _sharegpt),
    "text": Format(("text",), _text),
}


def conversations(
    path: Path,
    name: str = AUTO,
    columns: Mapping[str, str] | None = None,
    encoding: str = AUTO,
) -> Iterator[Conversation | DataError]:
    """Every conversation of a file, and in their place the rows that are none.

    Args:
        path: The file.
        name: The format all rows have; ``auto`` tells it from each row's keys.
        columns: New name by old name of columns.
        encoding: Of the file's text.

    Raises:
        ConfigError: If there is no such format or encoding.
        DataError: If the file cannot be read or has no rows.
    """
    formats = candidates(name)
    for row in source.read(path, columns, encoding):
        try:
            yield row if isinstance(row, DataError) else parse(row, formats)
        except DataError as problem:
            yield problem


def split_conversations(
    paths: Iterable[Path],
    name: str = AUTO,
    columns: Mapping[str, str] | None = None,
    encoding: str = AUTO,
) -> Iterator[Conversation | DataError]:
    """The same over all files of a split, in their order."""
    for path in paths:
        yield from conversations(path, name, columns, encoding)


def read_conversations(
    path: Path,
    name: str = AUTO,
    columns: Mapping[str, str] | None = None,
    encoding: str = AUTO,
) -> list[Conversation]:
    """Every conversation of a file; arguments as ``conversations``.

    Raises:
        ConfigError: If there is no such format or encoding.
        DataError: With all rows that do not parse, at once.
    """
    return read_split([path], name, columns, encoding)


def read_split(
    paths: Iterable[Path],
    name: str = AUTO,
    columns: Mapping[str, str] | None = None,
    encoding: str = AUTO,
) -> list[Conversation]:
    """Every conversation of a split; raises as ``read_conversations``."""
    rows = list(split_conversations(paths, name, columns, encoding))
    raise_together([row for row in rows if isinstance(row, DataError)])
    return [row for row in rows if isinstance(row, Conversation)]


def candidates(name: str) -> Sequence[Format]:
    """The formats that rows may have: the named one, or all under ``auto``.

    Raises:
        ConfigError: If there is no such format.
    """
    if name == AUTO:
        return list(FORMATS.values())
    if name not in FORMATS:
        raise ConfigError(
            f"There is no data format {name!r}.",
            where="data.format",
            hint=nearest(name, [AUTO, *FORMATS]),
        )
    return [FORMATS[name]]


def parse(
    row: Row, formats: Sequence[Format] = tuple(FORMATS.values())
) -> Conversation:
    """The conversation in a row, in whichever of the formats it is.

    Raises:
        DataError: If no format or more than one fits, or the turns are unusable.
    """
    fitting = [kind for kind in formats if all(key in row.record for key in kind.keys)]
    if len(fitting) != 1:
        wanted = "; or ".join(" and ".join(kind.keys) for kind in formats)
        raise DataError(
            f"The row fits {'no' if not fitting else 'more than one'} format; its keys "
            f"are {', '.join(map(repr, row.record)) or 'none'}.",
            where=row.where,
            hint=f"Give it {wanted}."
            if not fitting
            else "Drop the keys of one, or name the format with --format.",
        )
    try:
        return _conversation(fitting[0].parse(row.record), row)
    except ValueError as problem:
        said = str(problem)
        raise DataError(f"{said[:1].upper()}{said[1:]}.", where=row.where) from None


def _conversation(parsed: Turns | str, row: Row) -> Conversation:
    turns, text = ((), parsed) if isinstance(parsed, str) else (parsed, "")
    if turns:
        chat.check(turns)
    elif not text.strip():
        raise ValueError('"text" is empty')
    return Conversation(
        turns,
        row.where,
        id=str(row.record.get("id", "")),
        tags=_tags(row.record),
        text=text,
        tools=chat.tools(row.record.get("tools")),
        weight=_weight(row.record),
    )


def _weight(record: Mapping[str, Any]) -> float:
    given = record.get("weight", 1)
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f'"weight" is {given!r}, expected a number above 0')
    return weight


def _tags(record: Mapping[str, Any]) -> tuple[str, ...]:
    tags = record.get("tags", [])
    tags = [tags] if isinstance(tags, str) else tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('"tags" is not a list of names')
    return tuple(tags)
