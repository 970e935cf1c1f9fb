"""Byte-level BPE, the tokenizer that llama.cpp calls ``gpt2``.

A GGUF file stores tokens and merges but only the *name* of the rule that cuts text into
words before merging. The rules here are those llama.cpp applies under the same names
(its ``llama-vocab.cpp``); an unknown name is refused, because a near miss gives other
tokens for some texts and nobody notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile
from mlx_rsft.models.gguf_vocabulary import Vocabulary, strings


class Words(NamedTuple):
    """How text is cut before merging: expressions applied one after the other."""

    expressions: tuple[str, ...]
    whole_words_first: bool = False  # a word that is a token is taken unmerged
    starts_with_bos: bool = False  # where tokenizer.ggml.add_bos_token is silent


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_MODERN = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAMEL = (
    # A word ends where capitals follow small letters; ASCII alone has case here.
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+%s"
    r"|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDINGS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
_LLAMA3 = Words((_MODERN % "{1,3}",), whole_words_first=True, starts_with_bos=True)

WORDS: dict[str, Words] = {
    "gpt-2": Words((_GPT2,)),
    "smollm": Words((r"\p{N}", _GPT2)),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "falcon3": _LLAMA3,
    "dbrx": Words((_MODERN % "{1,3}",)),
    "qwen2": Words((_MODERN % "",)),
    "deepseek-r1-qwen": Words((_MODERN % "",)),
    "tekken": Words(
        (_CAMEL % ("", "", ""),), whole_words_first=True, starts_with_bos=True
    ),
    "gpt-4o": Words((_CAMEL % (_ENDINGS, _ENDINGS, "{1,3}"),)),
}

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def starts_with_bos(file: GgufFile) -> bool:
    """Whether BOS begins a text where the file is silent about it."""
    return _words(file).starts_with_bos


def rules(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The parts of ``tokenizer.json`` that turn text into tokens and back.

    Raises:
        ModelError: If the rule that cuts text into words is not one we know, or a merge
            does not join two tokens.
    """
    words = _words(file)
    return {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                *(
                    {
                        "type": "Split",
                        "pattern": {"Regex": expression},
                        "behavior": "Isolated",
                        "invert": False,
                    }
                    for expression in words.expressions
                ),
                {**_BYTE_LEVEL, "use_regex": False},
            ],
        },
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": words.whole_words_first,
            "vocab": {token: at for at, token in enumerate(vocabulary.tokens)},
            "merges": _merges(file, vocabulary.tokens),
        },
    }


def _words(file: GgufFile) -> Words:
    name = file.need("tokenizer.ggml.pre", str)
    if name not in WORDS:
        file.refuse(
            f"pre-tokenizer {name!r} is unknown, and a guess would give wrong tokens.",
            hint=f"Known: {', '.join(WORDS)}. {ELSEWHERE}",
        )
    return WORDS[name]


def _merges(file: GgufFile, tokens: Sequence[str]) -> list[list[str]]:
    merges = strings(file, "tokenizer.ggml.merges")
    pairs = [merge.split(" ") for merge in merges]
    known = set(tokens)
    for pair in pairs:
        if len(pair) != 2 or not known.issuperset((*pair, "".join(pair))):
            file.refuse(f"the merge {' '.join(pair)!r} does not join two tokens.")
    return pairs
