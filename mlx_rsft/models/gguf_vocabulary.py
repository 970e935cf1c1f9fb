"""The tokens of a GGUF file: their texts, their kinds, and which of them are special."""

from __future__ import annotations

from typing import NamedTuple

from mlx_rsft.models.gguf_file import GgufFile

# Values of tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


class Vocabulary(NamedTuple):
    """Every token's text and kind; its id is its place."""

    tokens: list[str]
    kinds: list[int]


def read(file: GgufFile) -> Vocabulary:
    """The vocabulary of a file.

    Raises:
        ModelError: If a token is missing a text or a kind, or is there twice.
    """
    tokens = strings(file, "tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens):
        file.refuse("the vocabulary holds the same token twice.")
    kinds: list[int] = file.need("tokenizer.ggml.token_type", list)
    if len(kinds) != len(tokens):
        file.refuse(f"there are {len(tokens)} tokens but {len(kinds)} token types.")
    return Vocabulary(tokens, kinds)


def strings(file: GgufFile, key: str) -> list[str]:
    """The list of texts at ``key``, which must be there."""
    values = file.need(key, list)
    if not all(isinstance(value, str) for value in values):
        file.refuse(f"{key!r} holds something that is not text.")
    return values


def special_ids(file: GgufFile) -> dict[str, int]:
    """Ids of the special tokens the file names, ``eos`` always: ``{"eos": 2, ...}``."""
    file.need("tokenizer.ggml.eos_token_id", int)
    found = {ours: special_id(file, theirs) for ours, theirs in SPECIAL.items()}
    return {ours: at for ours, at in found.items() if at is not None}


def special_id(file: GgufFile, name: str) -> int | None:
    """The id of the special token that llama.cpp calls ``name``, if there is one."""
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    size = len(file.need("tokenizer.ggml.tokens", list))
    at = file.need(key, int)
    if not 0 <= at < size:
        file.refuse(f"{key} is {at}, but there are {size} tokens.")
    return at
