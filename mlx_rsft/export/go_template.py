"""The little of Go's ``text/template`` that our Modelfiles use, rendered as Ollama does.

What Ollama hands over: ``.System``, the texts of all system messages, and ``.Messages``
with ``.Role`` and ``.Content``, the system messages among them. Only so can a template
be held against the chat template that a model was trained with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Messages = Sequence[dict[str, str]]

ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
RANGE = "range $i, $m := .Messages"


@dataclass
class Node:
    """A text, an expression, or a block with branches: condition and what is in it."""

    said: str
    branches: list[tuple[str, list[Node]]] = field(default_factory=list[Any])


def render(template: str, messages: Messages) -> str:
    """What Ollama makes of a conversation.

    Raises:
        ValueError: If the template uses something that is not known here.
    """
    parts = ACTION.split(template)
    nodes, rest = _parse(list(enumerate(parts)))
    if rest:
        raise ValueError(f"{rest[0][1]!r} closes nothing")
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    return _write(nodes, {"System": system, "Messages": list(messages)})


def _parse(
    parts: list[tuple[int, str]],
) -> tuple[list[Node], list[tuple[int, str]]]:
    """The nodes up to an ``else`` or ``end`` that is not ours, and what is left."""
    nodes: list[Node] = []
    while parts:
        place, text = parts[0]
        said = text.strip()
        if place % 2 == 0:
            nodes.append(Node(f"text {text}"))
        elif said.startswith(("else", "end")):
            return nodes, parts
        elif said.startswith(("if ", "range ")):
            node, parts = _block(said, parts[1:])
            nodes.append(node)
            continue
        else:
            nodes.append(Node(said))
        parts = parts[1:]
    return nodes, []


def _block(
    said: str, parts: list[tuple[int, str]]
) -> tuple[Node, list[tuple[int, str]]]:
    node = Node(said.split()[0])
    condition = said
    while True:
        inner, parts = _parse(parts)
        node.branches.append((condition, inner))
        if not parts:
            raise ValueError(f"{said!r} has no end")
        condition = parts[0][1].strip()
        parts = parts[1:]
        if condition == "end":
            return node, parts
        condition = condition.removeprefix("else").strip() or "if true"


def _write(nodes: Sequence[Node], known: dict[str, Any]) -> str:
    return "".join(_written(node, known) for node in nodes)


def _written(node: Node, known: dict[str, Any]) -> str:
    if node.said.startswith("text "):
        return node.said.removeprefix("text ")
    if node.said == "range":
        condition, inner = node.branches[0]
        if condition != RANGE:
            raise ValueError(f"{condition!r} is not known here")
        return "".join(
            _write(inner, {**known, "i": i, "m": message})
            for i, message in enumerate(known["Messages"])
        )
    if node.said == "if":
        for condition, inner in node.branches:
            if _value(condition.removeprefix("if "), known):
                return _write(inner, known)
        return ""
    return str(_value(node.said, known))


def _value(said: str, known: dict[str, Any]) -> Any:
    """The value of an expression: a field, a constant, or a function of some."""
    words = _words(said)
    if len(words) == 1:
        return _atom(words[0], known)
    name, *rest = words
    values = [_atom(word, known) for word in rest]
    if name == "eq":
        return values[0] == values[1]
    if name == "and":
        return all(values)
    if name == "not":
        return not values[0]
    if name == "len":
        return len(values[0])
    if name == "slice":
        return values[0][values[1] :]
    raise ValueError(f"the function {name!r} is not known here")


def _atom(word: str, known: dict[str, Any]) -> Any:
    if word.startswith("("):
        return _value(word[1:-1], known)
    if word.startswith('"'):
        return word[1:-1]
    if word.isdecimal():
        return int(word)
    names = {
        "true": True,
        "$i": known.get("i"),
        ".System": known["System"],
        "$.System": known["System"],
        "$.Messages": known["Messages"],
        "$m.Role": known.get("m", {}).get("role"),
        "$m.Content": known.get("m", {}).get("content"),
    }
    if word not in names:
        raise ValueError(f"{word!r} is not known here")
    return names[word]


def _words(said: str) -> list[str]:
    """Cut at spaces that are not inside brackets."""
    words, depth, current = list[str](), 0, ""
    for letter in said.strip():
        depth += (letter == "(") - (letter == ")")
        if letter == " " and not depth:
            words.append(current)
            current = ""
        else:
            current += letter
    return [word for word in [*words, current] if word]
