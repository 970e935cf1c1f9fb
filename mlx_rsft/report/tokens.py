"""The tokens of one row, and which of them are trained, for eyes."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mlx_rsft.report.page import page

STYLE = """
pre { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9;
  border: 1px solid var(--line); border-radius: .4rem; padding: 1rem; }
span.on { background: var(--on); color: var(--on-ink); }
pre span { border-left: 1px solid var(--line); }
span.special { color: var(--mark); font-weight: 600; }
span.on.special { color: inherit; }
sub { color: var(--faint); font-size: .65em; }
"""
PICTURES = 0x2400
"""Where Unicode keeps a picture of each control character."""


def visible(text: str) -> str:
    """A token with what cannot be seen made visible; a line still ends at its end.

    Control characters become pictures, so that no row can steer a terminal.
    """
    if text and not text.strip(" "):
        return "·" * len(text)
    return "".join(map(_seen, text))


def _seen(letter: str) -> str:
    if letter == "\n":
        return "↵\n"
    if letter == "\t":
        return "⇥"
    if ord(letter) < 0x20 or letter == "\x7f":
        return "\N{SYMBOL FOR DELETE}" if letter == "\x7f" else _picture(letter)
    if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp"):
        return f"\\u{ord(letter):04x}"
    return letter


def _picture(letter: str) -> str:
    return chr(PICTURES + ord(letter))


def tokens_page(shown: Mapping[str, Any], *, ids: bool) -> str:
    """The page of one row.

    Args:
        shown: ``{"where", "examples": [{"tokens"}]}`` as ``data show`` has it.
        ids: Whether ids stand behind the tokens; they are in their titles anyway.
    """
    examples: Sequence[Mapping[str, Any]] = shown["examples"]
    parts = [
        '<p class="faint">Trained tokens stand on colour; the others are read only. '
        "↵ is a line break, · a space that is a token of its own.</p>"
    ]
    for number, example in enumerate(examples, start=1):
        if len(examples) > 1:
            parts.append(f"<h2>Example {number} of {len(examples)}</h2>")
        parts.append(_example(example["tokens"], ids=ids))
    return page(f"Tokens of {shown['where']}", "\n".join(parts), STYLE)


def _example(tokens: Sequence[Mapping[str, Any]], *, ids: bool) -> str:
    trained = sum(token["trained"] for token in tokens)
    row = "".join(_token(token, ids=ids) for token in tokens)
    return f"<p>{trained} of {len(tokens)} tokens are trained.</p>\n<pre>{row}</pre>"


def _token(token: Mapping[str, Any], *, ids: bool) -> str:
    kinds = [
        name for name, on in (("on", "trained"), ("special", "special")) if token[on]
    ]
    number = int(token["id"])
    behind = f"<sub>{number}</sub>" if ids else ""
    classes = f' class="{" ".join(kinds)}"' if kinds else ""
    text = escape(visible(token["text"]))
    return f'<span{classes} title="{number}">{text}{behind}</span>'
