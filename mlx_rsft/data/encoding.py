"""From text to tokens, and from a place in the text to a place among the tokens.

A span is only right if the tokens before it are those that the text before it gives on
its own, because that text alone is what the model will be fed. Where a token is its own
piece whatever stands around it, as special tokens are, only what follows the last such
token needs to be compared.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Protocol

PROBE = " Zwölf  mm,\n\n\t<b>12</b> 'x' \N{SNOWMAN}\n"


class ChatTokenizer(Protocol):
    """The part of mlx-lm's tokenizer wrapper that rendering needs."""

    has_chat_template: bool
    chat_template: Any
    bos_token_id: int
    eos_token_id: int

    @property
    def eos_token_ids(self) -> Collection[int]: ...

    def apply_chat_template(
        self, messages: list[dict[str, Any]], **options: Any
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...


class Encoder:
    """A tokenizer without its slow outer layers, where they change nothing."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        inner: Any = getattr(tokenizer, "_tokenizer", tokenizer)
        outer = tokenizer.encode(PROBE, add_special_tokens=False)  # lifts truncation
        core: Any = getattr(inner, "backend_tokenizer", None)
        same = core and core.encode(PROBE, add_special_tokens=False).ids == outer
        self._core: Any = core if same else None
        added: dict[int, Any] = getattr(inner, "added_tokens_decoder", {})
        self._apart = frozenset(
            number
            for number, token in added.items()
            if not (token.normalized or token.lstrip or token.rstrip)
            and not token.single_word
        )
        self._ids_of_short = lru_cache(maxsize=256)(self.ids)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, none added."""
        if self._core is None:
            return self._tokenizer.encode(text, add_special_tokens=False)
        return self._core.encode(text, add_special_tokens=False).ids

    def encode(self, text: str) -> Encoded:
        """The tokens of a text, to be asked for places."""
        if self._core is None:
            return Encoded(self, text, self.ids(text), None)
        found = self._core.encode(text, add_special_tokens=False)
        return Encoded(self, text, found.ids, found)

    def begins(self, text: str, tokens: list[int], count: int) -> bool:
        """Whether a short text gives exactly the first ``count`` of the tokens."""
        return self._ids_of_short(text) == tokens[:count]

    def stands_apart(self, token: int) -> bool:
        """Whether a token is its own piece whatever text is around it."""
        return token in self._apart


class Encoded:
    """A text and its tokens."""

    def __init__(
        self, encoder: Encoder, text: str, tokens: list[int], found: Any
    ) -> None:
        self._encoder, self._text, self._found = encoder, text, found
        self.tokens = tokens

    def at(self, place: int) -> int | None:
        """How many tokens the text before ``place`` has, or None.

        None if the text up to there, on its own, gives other tokens than it does here.
        """
        if place == len(self._text):
            return len(self.tokens)
        count = self._found.char_to_token(place) if self._found else None
        if count is None:
            return self._compared(place)
        first = count - 1
        while first >= 0 and not self._encoder.stands_apart(self.tokens[first]):
            first -= 1
        if first < 0:
            return self._compared(place)
        short = self._text[self._found.token_to_chars(first)[0] : place]
        same = self._encoder.begins(short, self.tokens[first:count], count - first)
        return count if same else None

    def _compared(self, place: int) -> int | None:
        before = self._encoder.ids(self._text[:place])
        return len(before) if self.tokens[: len(before)] == before else None
