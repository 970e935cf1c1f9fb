"""Whether what a row says is still there in what a chat template wrote of it.

Templates drop what they have no place for without a word: tools, tool calls, a system
message. They also write values in their own ways, as JSON or as Python would; any of
these counts as there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BETWEEN = re.compile(r"\n|/no_think|/think")
"""What templates write differently, or take for a switch and remove."""


def says(text: str, content: str) -> bool:
    """Whether a template's text has a message's content."""
    if content.strip() in text:
        return True
    pieces = (piece.strip() for piece in BETWEEN.split(content))
    return all(_has(text, piece) for piece in pieces) or _has_data(text, content)


def _has_data(text: str, content: str) -> bool:
    """Whether a template took a tool's result for JSON and wrote it anew."""
    try:
        value = json.loads(content)
    except ValueError:
        return False
    return isinstance(value, dict | list) and all(
        _has(text, leaf) for leaf in _leaves(value)
    )


def missing_call(text: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """The name of a call that is not wholly in the text; empty if all are."""
    for call in calls:
        function = call["function"]
        wanted = [function["name"], *_leaves(function["arguments"])]
        if not all(_has(text, leaf) for leaf in wanted):
            return function["name"]
    return ""


def missing_tool(text: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """The name of a tool that the text does not mention; empty if all are there."""
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return name
    return ""


def _leaves(value: object) -> Iterator[object]:
    """Every key and every plain value in nested data."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _has(text: str, leaf: object) -> bool:
    if not isinstance(leaf, str):
        return json.dumps(leaf) in text or str(leaf) in text
    return leaf in text or any(form in text for form in _quoted(leaf))


def _quoted(leaf: str) -> Iterator[str]:
    """A string as it stands between the quotes of JSON, of JSON in JSON, of Python."""
    for plain_letters in (True, False):
        once = json.dumps(leaf, ensure_ascii=plain_letters)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=plain_letters)[1:-1]
    yield repr(leaf)[1:-1]
    yield leaf.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
