"""Doubles for tests, ours and yours: a tiny real model and a byte tokenizer.

The model is a real llama of mlx-lm with random weights, the tokenizer a real fast
tokenizer with one token per byte; both go through every code path that a large one does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

SPECIAL = ("<|pad|>", "<|start|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
VOCABULARY = 256 + len(SPECIAL)


def tiny_config(**changes: Any) -> dict[str, Any]:
    """A llama of some ten thousand parameters; ``changes`` override its fields."""
    return {
        "model_type": "llama",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
        "eos_token_id": VOCABULARY - 1,
        **changes,
    }


def tiny_model(seed: int = 0, **changes: Any) -> Any:
    """A tiny model in memory, its weights a function of the seed."""
    from mlx_lm.models import llama

    mx.random.seed(seed)
    model = llama.Model(llama.ModelArgs.from_dict(tiny_config(**changes)))
    model.freeze()
    model.eval()
    mx.eval(model.parameters())
    return model


def write_tiny_model(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A tiny model as a folder that stock mlx-lm and transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(tiny_model(seed, **changes).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(tiny_config(**changes)))
    _byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """mlx-lm's wrapper around a tokenizer with one token per byte."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    return TokenizerWrapper(_byte_tokenizer(), eos_token_ids=[VOCABULARY - 1])


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    pad, start, end = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        eos_token=end,
        additional_special_tokens=[start],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
