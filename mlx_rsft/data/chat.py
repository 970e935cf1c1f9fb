"""Turns as chat APIs and exports write them, brought into the one form templates take.

Raises ValueError with what is wrong; the caller knows the row's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shown
from typing import Any

from mlx_rsft.data import strict_json
from mlx_rsft.data.conversation import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
"""Who speaks, under the names that APIs and exports give them."""
PASSED_ON = ("name", "tool_call_id")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What programs call the thinking of a reply; templates know the first."""
CALL = "function_call"
"""A ShareGPT speaker, and OpenAI's key, before there were several calls in a turn."""


def turns(value: object, key: str) -> tuple[Message, ...]:
    """The messages under a key; spreadsheets carry them as the JSON text of a list.

    OpenAI's ``role`` and ``content`` and ShareGPT's ``from`` and ``value`` say the same.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value, f'"{key}"')
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{key}" is not a list of turns')
    return tuple(_turn(turn, place) for place, turn in enumerate(value, start=1))


def _turn(turn: object, place: int) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"message {place} is not an object")
    speaker = turn.get("role", turn.get("from"))
    said = turn.get("content", turn.get("value"))
    if speaker == CALL:
        turn, speaker, said = {**turn, CALL: said}, "assistant", None
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise ValueError(
            f"message {place} has the role {shown(speaker)}, expected "
            f"{', '.join(ROLES)}"
        )
    extra = {key: turn[key] for key in PASSED_ON if turn.get(key) is not None}
    thought = next((turn[key] for key in THOUGHTS if turn.get(key)), None)
    if isinstance(thought, str):
        extra["reasoning_content"] = thought
    if calls := turn.get("tool_calls") or turn.get(CALL):
        extra["tool_calls"] = _calls(calls, place)
    content = _content(said, place, may_be_missing="tool_calls" in extra)
    return Message(role, content, extra, _is_trained(turn, role, place))


def _content(value: object, place: int, *, may_be_missing: bool) -> str:
    """The text of a turn, also where it is written as a list of text parts."""
    if isinstance(value, str):
        return value
    if value is None and may_be_missing:
        return ""
    if not isinstance(value, list):
        raise ValueError(f"message {place} has no text in its content")
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(
                f"message {place} has a part of the type {shown(kind)}; only text is "
                "trained"
            )
        texts.append(part["text"])
    return "".join(texts)


def _calls(value: object, place: int) -> list[dict[str, Any]]:
    """Tool calls with their arguments as objects, which is what templates want."""
    if isinstance(value, str):
        value = _parsed(value, f"message {place}, a function call,")
    calls = value if isinstance(value, list) else [value]
    return [_call(call, place) for call in calls]


def _call(call: object, place: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"message {place} has a tool call without a function name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        called = f"message {place} has a tool call whose arguments"
        arguments = _parsed(arguments.strip() or "{}", called, "are")
    if not isinstance(arguments, dict):
        raise ValueError(f"message {place} has a tool call whose arguments are a list")
    made: dict[str, Any] = {"type": "function"}
    if call is not function and isinstance(call, dict):
        made |= call
    return {**made, "function": {"name": function["name"], "arguments": arguments}}


def _is_trained(turn: Mapping[str, Any], role: str, place: int) -> bool:
    weight = turn.get("weight")
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ValueError(
            f"message {place} has the weight {shown(weight)}, expected 0 or 1"
        )
    if role != "assistant":
        raise ValueError(f"message {place} has a weight, but is not the assistant's")
    return weight == 1


def tools(value: object) -> tuple[Mapping[str, Any], ...]:
    """The functions that the model was told of; a JSON text of a list is fine too."""
    if isinstance(value, str):
        value = _parsed(value, '"tools"') if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError('"tools" is not a list of functions')
    return tuple(value)


def _parsed(text: str, called: str, verb: str = "is") -> Any:
    """The value of a text that holds JSON, as exports write lists into one cell."""
    try:
        return strict_json.loads(text)
    except ValueError as problem:
        raise ValueError(f"{called} {verb} not JSON ({problem})") from None


class Unfit(ValueError):
    """Turns that are well written but not to be trained; ``fault`` says why in short."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def check(messages: Sequence[Message]) -> None:
    """Raise Unfit unless there is a reply to learn, and it is the last turn."""
    last = messages[-1]
    if last.role != "assistant":
        raise Unfit(
            "role order",
            f'the last message is from "{last.role}"; training needs an assistant '
            "reply there. Drop the row or add one",
        )
    trained = False
    for place, message in enumerate(messages, start=1):
        if message.role != "assistant":
            continue
        trained = trained or message.trained
        if not message.content.strip() and "tool_calls" not in message.extra:
            raise Unfit(
                "empty answer", f"message {place}, an assistant reply, is empty"
            )
    if not trained:
        raise Unfit(
            "nothing trained", "no assistant reply is trained: all have weight 0"
        )
