"""What a client may send: every field held against its type before anything runs.

What would be ignored or would load something is refused by name, because an answer that
is not what was asked for looks just like one that is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from reprlib import repr as shown
from typing import Any

from mlx_rsft.data import chat

CHAT = ("/v1/chat/completions", "/chat/completions")
TEXT = ("/v1/completions",)
Check = Callable[[Any], str]
"""What is expected where a value is not that; nothing where it is."""


class Refused(Exception):
    """A request that is not answered: an HTTP status, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _integer(least: int, most: float = math.inf) -> Check:
    limit = f" up to {most}" if most < math.inf else ""

    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool)
        return (
            ""
            if fits and least <= value <= most
            else f"a whole number from {least}{limit}"
        )

    return check


def _number(least: float = -math.inf, most: float = math.inf) -> Check:
    above = f" from {least:g}" if least > -math.inf else ""
    limit = f" up to {most:g}" if most < math.inf else ""

    def check(value: Any) -> str:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and least <= value <= most
        return "" if fits else f"a number{above}{limit}"

    return check


def _kind(kind: type, name: str) -> Check:
    return lambda value: "" if isinstance(value, kind) else name


def _only(*allowed: Any) -> Check:
    names = " or ".join(map(json.dumps, allowed))
    return lambda value: "" if value in allowed else f"{names}, which is all there is"


def _stops(value: Any) -> str:
    words = [value] if isinstance(value, str) else value
    fits = isinstance(words, list) and all(isinstance(w, str) and w for w in words)
    return "" if fits else "a text or a list of texts, none empty"


def _never(instead: str) -> Check:
    return lambda _value: f"nothing: {instead}"


ONE_MODEL = "this server answers with the model and adapter it was started with"
FIELDS: dict[str, Check] = {
    "model": _kind(str, "a text"),
    "adapters": _never(ONE_MODEL),
    "draft_model": _never(ONE_MODEL),
    "role_mapping": _never("the chat template says how turns are written"),
    "stream": _kind(bool, "true or false"),
    "stream_options": _kind(dict, "an object"),
    "max_tokens": _integer(1),
    "max_completion_tokens": _integer(1),
    "temperature": _number(0, 100),
    "top_p": _number(0, 1),
    "top_k": _integer(0),
    "min_p": _number(0, 1),
    "xtc_probability": _number(0, 1),
    "xtc_threshold": _number(0, 1),
    "repetition_penalty": _number(0),
    "repetition_context_size": _integer(0),
    "presence_penalty": _number(),
    "presence_context_size": _integer(0),
    "frequency_penalty": _number(),
    "frequency_context_size": _integer(0),
    "seed": _integer(0, 2**63 - 1),
    "stop": _stops,
    "n": _only(1),
    "best_of": _only(1),
    "echo": _only(False),
    "suffix": _only(""),
    "logprobs": _kind(bool, "true or false"),
    "top_logprobs": _integer(0, 11),
    "logit_bias": _kind(dict, "an object of numbers by token id"),
    "response_format": _only({"type": "text"}),
    "tool_choice": _only("auto", "none"),
    "chat_template_kwargs": _kind(dict, "an object"),
}
"""Fields that are looked at; others are let through unread, as OpenAI's clients send
some of their own."""


def parse(raw: bytes) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
        Refused: If it holds none.
    """
    try:
        body = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as problem:
        raise Refused(400, f"The body is not JSON: {problem}.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body is not a JSON object.")
    return body


def checked(body: Mapping[str, Any], path: str, vocabulary: int) -> dict[str, Any]:
    """A body as mlx-lm's handler takes it, every field of it sound.

    Args:
        body: Of the request; fields that are null count as left out.
        path: One of ``CHAT`` or ``TEXT``.
        vocabulary: Tokens of the model.

    Raises:
        Refused: With every field that is wrong.
    """
    given = {key: value for key, value in body.items() if value is not None}
    problems = [
        f"{key} is {shown(value)}, expected {expected}"
        for key, value in given.items()
        if key in FIELDS and (expected := FIELDS[key](value))
    ]
    given |= _asked(given, problems, is_chat=path in CHAT)
    if not problems and "logit_bias" in given:
        given["logit_bias"] = _bias(given["logit_bias"], vocabulary, problems)
    if problems:
        raise Refused(400, "; ".join(problems) + ".")
    for key in ("xtc_probability", "xtc_threshold"):  # mlx-lm takes no whole number
        given |= {key: float(given[key])} if key in given else {}
    usage = given.get("stream_options", {}).get("include_usage", False)
    return given | {"stream_options": {"include_usage": usage is True}}


def _asked(
    given: Mapping[str, Any], problems: list[str], *, is_chat: bool
) -> dict[str, Any]:
    """The question: turns in the form that data has too, or a text to be continued."""
    if not is_chat:
        prompt = given.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            problems.append(f"prompt is {shown(prompt)}, expected a text")
        return {}
    try:
        turns = chat.turns(given.get("messages"), "messages")
        tools = chat.tools(given.get("tools"))
    except ValueError as problem:
        problems.append(str(problem))
        return {}
    if given.get("tool_choice") == "none":
        tools = ()
    messages = [turn.as_template() for turn in turns]
    return {"messages": messages, "tools": [dict(tool) for tool in tools]}


def _bias(
    given: Mapping[str, Any], vocabulary: int, problems: list[str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    fits = _number()
    for token, value in given.items():
        inside = token.isdecimal() and int(token) < vocabulary
        if not inside or fits(value):
            problems.append(
                f"logit_bias has {shown(token)}: {shown(value)}, expected a number for "
                f"a token id below {vocabulary}"
            )
            break
        found[token] = float(value)
    return found
