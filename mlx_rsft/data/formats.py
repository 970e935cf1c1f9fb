"""How people write a conversation down, one entry per format.

A format says by its keys whether a row is its own, and turns that row into messages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from mlx_rsft.data import chat, containers, source
from mlx_rsft.data.containers import AUTO
from mlx_rsft.data.conversation import Conversation, Message, Row
from mlx_rsft.errors import ConfigError, DataError, nearest, raise_together

Turns = tuple[Message, ...]
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a row.

    Attributes:
        keys: The keys that a row of this format has.
        parse: Its turns, or its plain text; raises ValueError with what is wrong.
    """

    keys: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Turns | str]

    def fits(self, record: Mapping[str, Any]) -> bool:
        """Whether a row has the keys."""
        return all(map(record.__contains__, self.keys))


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
    if isinstance(value, list):
        return chat.turns(value, key)
    return (Message(role, _string(record, key)),)


def _text(record: Mapping[str, Any]) -> str:
    return _string(record, "text")


def _alpaca(record: Mapping[str, Any]) -> Turns:
    question = _string(record, "instruction")
    if record.get("input"):
        question = f"{question}\n\n{_string(record, 'input')}"
    answer = Message("assistant", _string(record, "output"))
    return (*_system(record), Message("user", question), answer)


def _sharegpt(record: Mapping[str, Any]) -> Turns:
    return (*_system(record), *chat.turns(record["conversations"], "conversations"))


def _system(record: Mapping[str, Any]) -> Turns:
    given = record.get("system")
    return (Message("system", _string(record, "system")),) if given else ()


def _string(record: Mapping[str, Any], key: str) -> str:
    """A text, or a number that is written in one way only."""
    value = record[key]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and NUMBER.fullmatch(str(value)):
        return str(value)
    raise ValueError(f'"{key}" is not text')


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

    What is wrong with the file as a whole comes as the last of them.

    Args:
        path: The file.
        name: The format all rows have; ``auto`` tells it from each row's keys.
        columns: New name by old name of columns.
        encoding: Of the file's text.

    Raises:
        ConfigError: If there is no such format or encoding.
    """
    formats = candidates(name)
    is_table = containers.is_table(path)
    try:
        for row in source.read(path, columns, encoding):
            if isinstance(row, DataError):
                yield row
                continue
            if is_table and not _fitting(row.record, formats):
                raise _misfit(row, formats)  # so does every other row of the table
            yield _parsed(row, formats)
    except DataError as problem:
        yield problem


def _parsed(row: Row, formats: Sequence[Format]) -> Conversation | DataError:
    try:
        return parse(row, formats)
    except DataError as problem:
        return problem


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
    rows = list(conversations(path, name, columns, encoding))
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
    row: Row,
    formats: Sequence[Format] = tuple(FORMATS.values()),
    check: Callable[[Turns], None] = chat.check,
) -> Conversation:
    """The conversation in a row, in whichever of the formats it is.

    Args:
        row: As it stands in the file.
        formats: Those it may have.
        check: Raises ValueError if turns are well written but of no use.

    Raises:
        DataError: If no format or more than one fits, or the turns are unusable.
    """
    fitting = _fitting(row.record, formats)
    if len(fitting) != 1:
        raise _misfit(row, formats)
    try:
        return _conversation(fitting[0].parse(row.record), row, check)
    except ValueError as problem:
        said, fault = str(problem), getattr(problem, "fault", "")
        message = f"{said[:1].upper()}{said[1:]}."
        raise DataError(message, where=row.where, fault=fault) from None


def _fitting(record: Mapping[str, Any], formats: Sequence[Format]) -> Sequence[Format]:
    """The formats whose keys a row has; of several, those where none is null."""
    found = [kind for kind in formats if kind.fits(record)]
    if len(found) < 2:
        return found
    filled = {key: value for key, value in record.items() if value is not None}
    return [kind for kind in found if kind.fits(filled)] or found


def _misfit(row: Row, formats: Sequence[Format]) -> DataError:
    keys = ", ".join(shown(key) for key in islice(row.record, MOST_NAMED))
    wanted = "; or ".join(" and ".join(kind.keys) for kind in formats)
    fits = "more than one" if _fitting(row.record, formats) else "no"
    return DataError(
        f"The row fits {fits} format; its keys are {keys or 'none'}.",
        where=row.where,
        hint=f"Give it {wanted}, or rename columns with --map."
        if fits == "no"
        else "Drop the keys of one, or name the format with --format.",
    )


def _conversation(
    parsed: Turns | str, row: Row, check: Callable[[Turns], None]
) -> Conversation:
    turns, text = ((), parsed) if isinstance(parsed, str) else (parsed, "")
    if turns:
        check(turns)
    elif not text.strip():
        raise ValueError('"text" is empty')
    return Conversation(
        turns,
        row.where,
        id="" if (name := row.record.get("id")) is None else str(name),
        tags=_tags(row.record),
        text=text,
        tools=chat.tools(row.record.get("tools")),
        weight=_weight(row.record),
        choices=_choices(row.record),
    )


def _choices(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The choices: a list of texts, or one text with bars, as in a cell.

    Other columns of that name are no fault: only a metric asks for choices, and says
    then what is missing.
    """
    given = record.get("choices")
    texts = given.split("|") if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return ()
    return tuple(texts)


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
    """The tags: a list of names, or one text with commas, as in a cell."""
    tags = record.get("tags") or []
    if isinstance(tags, str):
        tags = [tag for tag in map(str.strip, tags.split(",")) if tag]
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('"tags" is not a list of names')
    return tuple(tags)
