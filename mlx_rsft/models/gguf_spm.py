"""SentencePiece's BPE, the tokenizer that llama.cpp calls ``llama``.

There are scores instead of merges: of all neighbours whose union is a token, the union
with the highest score is joined first. Spaces are U+2581 inside tokens, and a character
without a token becomes the tokens of its UTF-8 bytes.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile
from mlx_rsft.models.gguf_vocabulary import (
    BYTE,
    NORMAL,
    UNUSED,
    Vocabulary,
    special_ids,
)

SPACE = "\u2581"
LONGEST_TOKEN = (
    512  # characters; each of its cuts is looked at. Real ones have 16 to 100
)


def starts_with_bos(file: GgufFile) -> bool:
    """Whether BOS begins a text where the file is silent about it."""
    return True


def rules(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The parts of ``tokenizer.json`` that turn text into tokens and back.

    Raises:
        ModelError: If scores are missing or do not say what is joined first, or a byte
            has no token.
    """
    tokens = vocabulary.tokens
    _check_bytes(file, vocabulary)
    unknown = special_ids(file).get("unk")
    prefix = file.get("tokenizer.ggml.add_space_prefix", True)
    return {
        "normalizer": _sequence(
            "normalizers",
            *([{"type": "Prepend", "prepend": SPACE}] if prefix else []),
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ),
        "pre_tokenizer": None,
        "decoder": _sequence(
            "decoders",
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([_LEADING_SPACE] if prefix else []),
        ),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unknown is None else tokens[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: at for at, token in enumerate(tokens)},
            "merges": _merges(file, vocabulary),
        },
    }


_LEADING_SPACE = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _sequence(of: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", of: list(steps)}


def _check_bytes(file: GgufFile, vocabulary: Vocabulary) -> None:
    found = {token for token, kind in zip(*vocabulary, strict=True) if kind == BYTE}
    for byte in range(256):
        if f"<0x{byte:02X}>" not in found:
            file.refuse(f"there is no token for the byte 0x{byte:02X}.")


def _merges(file: GgufFile, vocabulary: Vocabulary) -> list[list[str]]:
    """Every way to join two tokens into a third, the highest score first.

    Control and user-defined tokens are found in a text before anything is joined, so
    none of them is a part or a result.
    """
    scores = file.need("tokenizer.ggml.scores", list)
    if len(scores) != len(vocabulary.tokens):
        file.refuse(
            f"there are {len(vocabulary.tokens)} tokens but {len(scores)} scores."
        )
    if not all(isinstance(score, float) and isfinite(score) for score in scores):
        file.refuse("'tokenizer.ggml.scores' holds something that is no number.")
    joined = {
        token: float(score)
        for token, kind, score in zip(*vocabulary, scores, strict=True)
        if kind in (NORMAL, UNUSED)
    }
    longest = max(map(len, joined), default=0)
    if longest > LONGEST_TOKEN:
        file.refuse(f"a token has {longest} characters; {LONGEST_TOKEN} are the most.")
    merges: list[list[str]] = []
    before = ""
    for token in sorted(joined, key=joined.__getitem__, reverse=True):
        halves = ([token[:cut], token[cut:]] for cut in range(1, len(token)))
        found = [pair for pair in halves if pair[0] in joined and pair[1] in joined]
        if not found:
            continue
        if before and joined[before] == joined[token]:
            file.refuse(
                f"{before!r} and {token!r} have the same score, "
                "which leaves open what is joined first.",
                hint=ELSEWHERE,
            )
        merges += found
        before = token
    return merges
