"""What a reply thinks before it speaks, and messages in the form a template takes.

Data has thinking as ``reasoning_content`` or as a ``<think>`` block in the reply. Some
templates take it as a value of its own, some only inside the text, and some cut it out
even of the reply that is to be learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from mlx_rsft.data.conversation import Message
from mlx_rsft.data.templates import CLOSE, Template, Written

OPEN = "<think>"


class Arguments(Enum):
    """How the arguments of a tool call are handed to a template."""

    OBJECTS = "objects"
    STRINGS = "strings"


def reasoning(message: Message) -> tuple[str, str]:
    """What a reply thinks, and what it then says."""
    thought = message.extra.get("reasoning_content")
    if thought and isinstance(thought, str):
        return thought.strip(), message.content.strip()
    before, found, after = message.content.rpartition(CLOSE)
    if not found:
        return "", message.content.strip()
    return before.partition(OPEN)[2].strip() or before.strip(), after.strip()


def as_template(
    message: Message, arguments: Arguments, template: Template, *, learned: bool
) -> dict[str, Any]:
    """A message in the form that a template reads.

    A template that takes thinking as a value gets it so. One that knows it only in the
    text gets it there in the reply that is learned; earlier replies stay as they are,
    as they would in use.
    """
    made = message.as_template()
    if arguments is Arguments.STRINGS and "tool_calls" in made:
        made["tool_calls"] = [_with_text(call) for call in made["tool_calls"]]
    thought, said = reasoning(message)
    if not thought or message.role != "assistant":
        return made
    if template.takes_thinking:
        return made | {"reasoning_content": thought, "content": said}
    if template.writes_thinking and learned:
        made.pop("reasoning_content", None)
        return made | {"content": _aloud(message)}
    return made


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _aloud(message: Message) -> str:
    """A reply with its thinking, as the model writes it."""
    if CLOSE in message.content:
        return message.content
    thought, said = reasoning(message)
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{said}"


def put_back(asked: str, answered: Written, message: Message) -> Written:
    """The reply with its thinking, where a template cuts it out even of the last one.

    Such a template is made for use, where the model's reply is never written by it.
    """
    thought, said = reasoning(message)
    written = answered.text
    if written.startswith(asked) and thought in written[len(asked) :]:
        return answered
    if said not in written:
        return answered
    raw = _aloud(message)
    if asked.rstrip().endswith(OPEN):
        raw = raw.split(OPEN, 1)[-1].lstrip("\n")
    rest = written[written.rindex(said) + len(said) :]
    return Written(asked + raw.rstrip() + rest)
