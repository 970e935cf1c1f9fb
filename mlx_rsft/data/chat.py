"""Turns as chat APIs and exports write them, brought into the one form templates take.

Raises ValueError with what is wrong; the caller knows the row's place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_rsft.data.conversation import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
PASSED_ON = ("name", "tool_call_id")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What programs call the thinking of a reply; templates know the first."""


def turns(value: object, key: str) -> tuple[Message, ...]:
    """The messages under a key, in the form of OpenAI's chat files."""
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{key}" is not a list of turns')
    return tuple(_turn(turn, place) for place, turn in enumerate(value, start=1))


def _turn(turn: object, place: int) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"message {place} is not an object")
    role = ROLES.get(str(turn.get("role")))
    if role is None:
        raise ValueError(
            f"message {place} has the role {turn.get('role')!r}, expected "
            f"{', '.join(ROLES)}"
        )
    extra = {key: turn[key] for key in PASSED_ON if turn.get(key) is not None}
    thought = next((turn[key] for key in THOUGHTS if turn.get(key)), None)
    if isinstance(thought, str):
        extra["reasoning_content"] = thought
    if turn.get("tool_calls"):
        extra["tool_calls"] = _calls(turn["tool_calls"], place)
    content = _content(turn.get("content"), place, may_be_missing="tool_calls" in extra)
    return Message(role, content, extra, _is_trained(turn, role, place))


def _content(value: object, place: int, *, may_be_missing: bool) -> str:
    """The text of a turn, also where it is written as a list of text parts."""
    if value is None and may_be_missing:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"message {place} has no text in its content")
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(
                f"message {place} has a part of the type {kind!r}; only text is trained"
            )
        texts.append(part["text"])
    return "".join(texts)


def _calls(value: object, place: int) -> list[dict[str, Any]]:
    """Tool calls with their arguments as objects, which is what templates want."""
    calls = value if isinstance(value, list) else [value]
    return [_call(call, place) for call in calls]


def _call(call: object, place: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"message {place} has a tool call without a function name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError:
            raise ValueError(
                f"message {place} has a tool call whose arguments are not JSON"
            ) from None
    if not isinstance(arguments, dict):
        raise ValueError(f"message {place} has a tool call whose arguments are a list")
    made: dict[str, Any] = {"type": "function"}
    if call is not function and isinstance(call, dict):
        made |= call
    return {**made, "function": {"name": function["name"], "arguments": arguments}}


def _is_trained(turn: Mapping[str, Any], role: str, place: int) -> bool:
    weight = turn.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ValueError(f"message {place} has the weight {weight!r}, expected 0 or 1")
    if "weight" in turn and role != "assistant":
        raise ValueError(f"message {place} has a weight, but is not the assistant's")
    return weight == 1


def sharegpt_turns(value: object) -> tuple[Message, ...]:
    """The turns of a ShareGPT export: ``from`` and ``value``, under many names."""
    if not isinstance(value, list) or not value:
        raise ValueError('"conversations" is not a list of turns')
    return tuple(_sharegpt_turn(turn, n) for n, turn in enumerate(value, start=1))


def _sharegpt_turn(turn: object, place: int) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {place} is not an object")
    speaker, said = (
        turn.get("from", turn.get("role")),
        turn.get("value", turn.get("content")),
    )
    if not isinstance(said, str):
        raise ValueError(f"turn {place} has no text in its value")
    if speaker == "function_call":
        return Message(
            "assistant", "", {"tool_calls": [_call(_parsed(said, place), place)]}
        )
    role = SHAREGPT_ROLES.get(str(speaker))
    if role is None:
        raise ValueError(
            f"turn {place} is from {speaker!r}, expected {', '.join(SHAREGPT_ROLES)}"
        )
    return Message(role, said)


def _parsed(said: str, place: int) -> object:
    try:
        return json.loads(said)
    except json.JSONDecodeError:
        raise ValueError(f"turn {place}, a function call, is not JSON") from None


def tools(value: object) -> tuple[Mapping[str, Any], ...]:
    """The functions that the model was told of; a JSON text of a list is fine too."""
    if isinstance(value, str):
        value = _parsed_tools(value)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError('"tools" is not a list of functions')
    return tuple(value)


def _parsed_tools(value: str) -> object:
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError('"tools" is a text that is not JSON') from None


def check(messages: Sequence[Message]) -> None:
    """Raise ValueError unless there is a reply to learn, and it is the last turn."""
    last = messages[-1]
    if last.role != "assistant":
        raise ValueError(
            f'the last message is from "{last.role}"; training needs an assistant '
            "reply there. Drop the row or add one"
        )
    for place, message in enumerate(messages, start=1):
        empty = not message.content.strip() and "tool_calls" not in message.extra
        if message.role == "assistant" and empty:
            raise ValueError(f"message {place}, an assistant reply, is empty")
    if not any(m.trained for m in messages if m.role == "assistant"):
        raise ValueError("no assistant reply is trained: all have weight 0")
