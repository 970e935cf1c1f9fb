"""The metadata of a model's tokenizer, from its ``tokenizer.json``.

llama.cpp knows the rule that cuts text into words only by name. Which name is right is
found by trying: every known rule cuts the same difficult text, and one must cut it as
the tokenizer does. No name is ever guessed, because a near miss gives other tokens for
some texts and nobody notices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_rsft.errors import ConfigError
from mlx_rsft.export.gguf_fields import Fields, field
from mlx_rsft.models.gguf_bpe import WORDS
from mlx_rsft.models.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPECIAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)

DIFFICULT = (
    "Hello, world!   I'm you're WE'LL they'VE it'S d'accord 's 1234567890 3.14159 007 "
    "1,000,000\n\n\r\n  five\ttab\t\ttabs \t mixed \n \n\t \ndef f(x):\n    return "
    "{'a': [1, 2], \"b\": x ** 2}  # ok?! 🙂👩‍👩‍👧 日本語の文章です。３３３メートル。 "
    "Straße naïve “quotes” … ½ ² Привет мир! مرحبا नमस्ते 12ab34 _x_ --flag=1  "
)
SPACE = "\u2581"


def fields(tokenizer: Any, rows: int) -> Fields:
    """Tokens, rules, special tokens and chat template under ``tokenizer.``.

    Args:
        tokenizer: mlx-lm's wrapper.
        rows: Rows of the embedding; more than there are tokens in many models.

    Raises:
        ConfigError: If the tokenizer is of a kind that is not known here.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    record = json.loads(backend.to_str()) if backend else {}
    model = record.get("model", {})
    if model.get("type") != "BPE":
        _refuse(f"a tokenizer of type {model.get('type')!r}")
    texts, kinds = _tokens(record, rows)
    if model.get("byte_fallback"):
        rules = _scored(tokenizer, model, texts, kinds)
    else:
        rules = _merged(backend, model)
    named = {
        **rules,
        "tokens": texts,
        "token_type": kinds,
        **_special(tokenizer),
    }
    found = {f"tokenizer.ggml.{key}": field(value) for key, value in named.items()}
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str) and template:
        found["tokenizer.chat_template"] = field(template)
    return found


def _refuse(what: str) -> None:
    raise ConfigError(
        f"How llama.cpp holds {what} is not known here.",
        where="--to gguf-merged",
        hint="Give the base model as a .gguf file, whose tokenizer is copied.",
    )


def _tokens(record: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    known = {at: token for token, at in record["model"]["vocab"].items()}
    added = {one["id"]: one for one in record["added_tokens"]}
    unknown = record["model"].get("unk_token")
    texts: list[str] = []
    kinds: list[int] = []
    for at in range(rows):
        own = added.get(at)
        text = own["content"] if own else known.get(at, f"[PAD{at}]")
        texts.append(text)
        if own:
            kind = CONTROL if own["special"] else USER_DEFINED
            kinds.append(UNKNOWN if text == unknown else kind)
        elif at not in known:
            kinds.append(UNUSED)
        else:
            kinds.append(BYTE if _is_byte(text) else NORMAL)
    return texts, kinds


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _merged(backend: Any, model: Mapping[str, Any]) -> dict[str, Any]:
    pairs = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]
    ]
    rule = words(backend, whole_first=bool(model.get("ignore_merges")))
    return {"model": "gpt2", "pre": rule, "merges": pairs}


def words(backend: Any, *, whole_first: bool) -> str:
    """llama.cpp's name of the rule by which a byte-level tokenizer cuts text.

    Raises:
        ConfigError: If no known rule cuts the difficult text alike.
    """
    from tokenizers import Regex, pre_tokenizers

    wanted = _cut(backend.pre_tokenizer)
    for name, rule in WORDS.items():
        steps: list[Any] = [
            pre_tokenizers.Split(Regex(expression), "isolated")
            for expression in rule.expressions
        ]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        same = _cut(pre_tokenizers.Sequence(steps)) == wanted
        if same and rule.whole_words_first == whole_first:
            return name
    raise ConfigError(
        "No rule of llama.cpp that is known here cuts text into words as this "
        "tokenizer does.",
        where="--to gguf-merged",
        hint="Give the base model as a .gguf file, whose tokenizer is copied.",
    )


def _cut(rule: Any) -> list[str]:
    return [piece for piece, _ in rule.pre_tokenize_str(DIFFICULT)] if rule else []


def _scored(
    tokenizer: Any, model: Mapping[str, Any], texts: list[str], kinds: list[int]
) -> dict[str, Any]:
    """Scores instead of merges: what is joined first has the highest."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        ranks.setdefault(left + right, rank)
    last = len(model["merges"])
    scores = [
        float(-ranks.get(text, last)) if kind == NORMAL else 0.0
        for text, kind in zip(texts, kinds, strict=True)
    ]
    first = tokenizer.convert_ids_to_tokens(_plain(tokenizer, "a"))[0]
    return {
        "model": "llama",
        "pre": "default",
        "scores": scores,
        "add_space_prefix": str(first).startswith(SPACE),
    }


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _special(tokenizer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ours, theirs in SPECIAL.items():
        at = getattr(tokenizer, f"{ours}_token_id", None)
        if at is not None:
            found[f"{theirs}_token_id"] = int(at)
    ends = sorted(set(tokenizer.eos_token_ids) - {found.get("eos_token_id")})
    if ends:
        found["eot_token_id"] = int(ends[0])
    around = list(tokenizer.encode("a"))
    found["add_bos_token"] = around[0] == found.get("bos_token_id")
    found["add_eos_token"] = around[-1] == found.get("eos_token_id")
    return found
