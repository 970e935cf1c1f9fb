"""The tokenizer inside a GGUF file, as the files transformers reads.

A new kind of tokenizer is one more member of ``TOKENIZERS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mlx_rsft.models import gguf_bpe, gguf_spm, gguf_vocabulary
from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile
from mlx_rsft.models.gguf_vocabulary import (
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    special_ids,
)


class Kind(NamedTuple):
    """How one kind of tokenizer of llama.cpp is written for transformers."""

    rules: Callable[[GgufFile, Vocabulary], dict[str, Any]]
    starts_with_bos: Callable[[GgufFile], bool]


TOKENIZERS: dict[str, Kind] = {
    "gpt2": Kind(gguf_bpe.rules, gguf_bpe.starts_with_bos),
    "llama": Kind(gguf_spm.rules, gguf_spm.starts_with_bos),
}
PHI_3 = ("phi-3", "phi3")  # in a model's name; nothing else in its files tells it
PHI_3_KEEPS_SPACE = ("<unk>", "<s>", "<|endoftext|>")
# Many files do not name theirs as ``eot``; llama.cpp goes by the text too.
TURN_ENDS = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>")


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
    vocabulary = gguf_vocabulary.read(file)
    ids = special_ids(file)
    texts = {
        "tokenizer.json": _tokenizer(file, vocabulary, TOKENIZERS[model]),
        "tokenizer_config.json": _json(_tokenizer_config(file, vocabulary.tokens, ids)),
        "generation_config.json": _json(_generation_config(file, vocabulary, ids)),
    }
    if template := file.get("tokenizer.chat_template", ""):
        texts["chat_template.jinja"] = template
    return texts


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _tokenizer(file: GgufFile, vocabulary: Vocabulary, kind: Kind) -> str:
    record = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(file, vocabulary),
        "post_processor": _post_processor(
            file, vocabulary.tokens, starts_with_bos=kind.starts_with_bos(file)
        ),
        **kind.rules(file, vocabulary),
    }
    # Not indented: a large vocabulary has half a million merges.
    return json.dumps(record, ensure_ascii=False)


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


def _generation_config(
    file: GgufFile, vocabulary: Vocabulary, ids: Mapping[str, int]
) -> dict[str, Any]:
    """What ends an answer: the end of the text, of a turn, of a message."""
    eos = ids["eos"]
    named = [gguf_vocabulary.special_id(file, end) for end in ("eot", "eom")]
    others = [at for at in named if at is not None]
    others += [at for at, token in enumerate(vocabulary.tokens) if token in TURN_ENDS]
    ends = list(dict.fromkeys([eos, *others]))
    return {
        **{f"{name}_token_id": at for name, at in ids.items()},
        "eos_token_id": ends,
    }


def _added_tokens(file: GgufFile, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Tokens found in a text before anything else; only some are hidden in output.

    Those of Phi 3 swallow the white space that follows, in transformers and llama.cpp.
    """
    name = file.get("general.name", "").lower()
    swallows = any(part in name for part in PHI_3)
    return [
        {
            "id": at,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": swallows and token not in PHI_3_KEEPS_SPACE,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for at, (token, kind) in enumerate(zip(*vocabulary, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _post_processor(
    file: GgufFile, tokens: Sequence[str], *, starts_with_bos: bool
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

    bos = file.get("tokenizer.ggml.add_bos_token", starts_with_bos)
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
