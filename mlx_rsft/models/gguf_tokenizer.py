"""The tokenizer inside a GGUF file, as the files transformers reads.

A GGUF file stores tokens and merges but only the *name* of the rule that cuts text into
words before merging. The rules here are those llama.cpp applies under the same names
(its ``llama-vocab.cpp``); an unknown name is refused, because a near miss gives other
tokens for some texts and nobody notices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # values of tokenizer.ggml.token_type


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
_LLAMA3 = Words((_MODERN % "{1,3}",), whole_words_first=True, starts_with_bos=True)

WORDS: dict[str, Words] = {
    "gpt-2": Words((_GPT2,)),
    "smollm": Words((r"\p{N}", _GPT2)),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": Words((_MODERN % "",)),
}
SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def special_ids(file: GgufFile) -> dict[str, int]:
    """Ids of the special tokens the file names, ``eos`` always: ``{"eos": 2, ...}``."""
    file.need("tokenizer.ggml.eos_token_id", int)
    size = len(file.need("tokenizer.ggml.tokens", list))
    ids: dict[str, int] = {}
    for ours, theirs in SPECIAL.items():
        key = f"tokenizer.ggml.{theirs}_token_id"
        if key in file.fields:
            ids[ours] = file.need(key, int)
            if not 0 <= ids[ours] < size:
                file.refuse(f"{key} is {ids[ours]}, but there are {size} tokens.")
    return ids


def documents(file: GgufFile) -> dict[str, str]:
    """The tokenizer's files: name to text; a chat template only if the file has one.

    Raises:
        ModelError: If the kind of tokenizer, or the rule that cuts text into words, is
            not one we know; if tokens, merges and special tokens contradict each other.
    """
    model = file.need("tokenizer.ggml.model", str)
    if model not in TOKENIZERS:
        file.refuse(
            f"tokenizer model {model!r} cannot be read.",
            hint=f"Known: {', '.join(TOKENIZERS)}. {ELSEWHERE}",
        )
    tokens = _strings(file, "tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens):
        file.refuse("the vocabulary holds the same token twice.")
    ids = special_ids(file)
    texts = {
        "tokenizer.json": _json(TOKENIZERS[model](file, tokens)),
        "tokenizer_config.json": _json(_tokenizer_config(file, tokens, ids)),
        "generation_config.json": _json(_generation_config(file, ids)),
    }
    if template := file.get("tokenizer.chat_template", ""):
        texts["chat_template.jinja"] = template
    return texts


def _strings(file: GgufFile, key: str) -> list[str]:
    values = file.need(key, list)
    if not all(isinstance(value, str) for value in values):
        file.refuse(f"{key!r} holds something that is not text.")
    return values


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _tokenizer_config(
    file: GgufFile, tokens: Sequence[str], ids: Mapping[str, int]
) -> dict[str, Any]:
    architecture = file.need("general.architecture", str)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.need(f"{architecture}.context_length", int),
        **{f"{name}_token": tokens[at] for name, at in ids.items()},
    }


def _generation_config(file: GgufFile, ids: Mapping[str, int]) -> dict[str, Any]:
    """What ends an answer: the end of the text, of a turn, of a message."""
    eos = ids["eos"]
    others = [file.get(f"tokenizer.ggml.{end}_token_id", eos) for end in ("eot", "eom")]
    ends = list(dict.fromkeys([eos, *others]))
    return {
        **{f"{name}_token_id": at for name, at in ids.items()},
        "eos_token_id": ends,
    }


def _byte_level_bpe(file: GgufFile, tokens: Sequence[str]) -> dict[str, Any]:
    words = _words(file)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(file, tokens),
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
        "post_processor": _post_processor(file, tokens, words),
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
            "vocab": {token: at for at, token in enumerate(tokens)},
            "merges": _merges(file, tokens),
        },
    }


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}

TOKENIZERS: dict[str, Callable[[GgufFile, Sequence[str]], dict[str, Any]]] = {
    "gpt2": _byte_level_bpe,
}


def _words(file: GgufFile) -> Words:
    name = file.need("tokenizer.ggml.pre", str)
    if name not in WORDS:
        file.refuse(
            f"pre-tokenizer {name!r} is unknown, and a guess would give wrong tokens.",
            hint=f"Known: {', '.join(WORDS)}. {ELSEWHERE}",
        )
    return WORDS[name]


def _added_tokens(file: GgufFile, tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens found in a text before anything else; only some are hidden in output."""
    kinds: list[int] = file.need("tokenizer.ggml.token_type", list)
    if len(kinds) != len(tokens):
        file.refuse(f"there are {len(tokens)} tokens but {len(kinds)} token types.")
    return [
        {
            "id": at,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for at, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _merges(file: GgufFile, tokens: Sequence[str]) -> list[list[str]]:
    merges = _strings(file, "tokenizer.ggml.merges")
    pairs = [merge.split(" ") for merge in merges]
    known = set(tokens)
    for pair in pairs:
        if len(pair) != 2 or not known.issuperset((*pair, "".join(pair))):
            file.refuse(f"the merge {' '.join(pair)!r} does not join two tokens.")
    return pairs


def _post_processor(
    file: GgufFile, tokens: Sequence[str], words: Words
) -> dict[str, Any] | None:
    """What is put around every text: a BOS token, an EOS token, both or nothing."""
    used: dict[str, Any] = {}

    def special(name: str, *, wanted: bool, text: int) -> list[dict[str, Any]]:
        if not wanted:
            return []
        at = file.need(f"tokenizer.ggml.{name}_token_id", int)
        token = tokens[at]
        used[token] = {"id": token, "ids": [at], "tokens": [token]}
        return [{"SpecialToken": {"id": token, "type_id": text}}]

    bos = file.get("tokenizer.ggml.add_bos_token", words.starts_with_bos)
    eos = file.get("tokenizer.ggml.add_eos_token", False)
    first, second = (
        [
            *special("bos", wanted=bos, text=text),
            {"Sequence": {"id": letter, "type_id": text}},
            *special("eos", wanted=eos, text=text),
        ]
        for text, letter in enumerate("AB")
    )
    if not used:
        return None
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": used,
    }
