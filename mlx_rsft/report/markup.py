"""HTML from parts: text is escaped where it enters, and what cannot be seen is shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

from mlx_rsft.report.tokens import visible

JOINERS = "\u200c\u200d"
"""Emoji and several scripts are written with them."""
BREAKS = ":,/_"
"""After these a long name may go on in the next line."""


class Html(str):
    """Markup that is already escaped."""

    __slots__ = ()


def clean(text: str) -> str:
    """The text with controls and marks of direction made visible; line ends stay."""
    if text.isprintable():
        return text
    return "".join(map(_seen, text))


def _seen(letter: str) -> str:
    plain = letter.isprintable() or letter == "\n" or letter in JOINERS
    if plain or unicodedata.category(letter) == "Zs":
        return letter
    return visible(letter)


def text(content: str) -> Html:
    """Plain text as markup; markup stays as it is."""
    return content if isinstance(content, Html) else Html(escape(clean(content)))


def el(name: str, *children: str, **attributes: str) -> Html:
    """An element. An attribute's trailing underscore is dropped, others are dashes."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(clean(value))}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{''.join(map(text, children))}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Parts in a row."""
    return Html(text(between).join(map(text, parts)))


def name(content: str) -> Html:
    """The name of an arm, a split or a file: not translated, broken where it may."""
    written = text(content)
    for sign in BREAKS:
        written = Html(written.replace(sign, f"{sign}<wbr>"))
    return Html(f'<bdi class="name" translate="no">{written}</bdi>')


def written(content: str) -> Html:
    """A text of the data as it stands, lines and all; Japanese in Japanese letters."""
    attributes = {"lang": "ja"} if _is_japanese(content) else {}
    return el("pre", content, dir="auto", **attributes)


def _is_japanese(content: str) -> bool:
    """Whether there is kana; without it the same code points may be Chinese."""
    return any("\u3040" <= letter <= "\u30ff" for letter in content)
