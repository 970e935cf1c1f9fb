"""llama.cpp's ``qwen2`` and ``qwen3`` architectures: Qwen 2, 2.5 and 3, dense.

Qwen 2 adds biases to queries, keys and values, Qwen 3 norms to queries and keys. What
MLX's models cannot express is refused by name.
"""

from __future__ import annotations

from typing import Any

from mlx_rsft.models import gguf_decoder
from mlx_rsft.models.gguf_decoder import rope_parameters
from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile

Config = dict[str, Any]

LAYER = "model.layers.{}"
WORDS_2 = ("qwen2", "deepseek-r1-qwen")
_SHARED: dict[str, tuple[str, str]] = {
    **gguf_decoder.TENSORS,
    "blk.{}.ffn_norm.weight": (f"{LAYER}.post_attention_layernorm.weight", "D"),
}
TENSORS_2: dict[str, tuple[str, str]] = {
    **_SHARED,
    "blk.{}.attn_q.bias": (f"{LAYER}.self_attn.q_proj.bias", "Q"),
    "blk.{}.attn_k.bias": (f"{LAYER}.self_attn.k_proj.bias", "K"),
    "blk.{}.attn_v.bias": (f"{LAYER}.self_attn.v_proj.bias", "K"),
}
TENSORS_3: dict[str, tuple[str, str]] = {
    **_SHARED,
    "blk.{}.attn_q_norm.weight": (f"{LAYER}.self_attn.q_norm.weight", "H"),
    "blk.{}.attn_k_norm.weight": (f"{LAYER}.self_attn.k_norm.weight", "H"),
}


def config_2(file: GgufFile) -> Config:
    """The ``config.json`` of a qwen2 model, without special tokens and quantisation.

    transformers cuts the words of this model type by Qwen's own rule, and composes
    accents first, whatever ``tokenizer.json`` says.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    shared = gguf_decoder.config(file, "attention.sliding_window")
    gguf_decoder.refuse_other_head_width(file, shared)
    words = file.need("tokenizer.ggml.pre", str)
    if words not in WORDS_2:
        file.refuse(
            f"transformers cuts the words of every qwen2 model by one rule, which "
            f"is not the pre-tokenizer {words!r} of this file.",
            hint=f"Known: {', '.join(WORDS_2)}. {ELSEWHERE}",
        )
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **shared,
        "attention_bias": True,
        "use_sliding_window": False,
        **_rest(file),
    }


def config_3(file: GgufFile) -> Config:
    """The ``config.json`` of a qwen3 model, without special tokens and quantisation.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **gguf_decoder.config(file, "attention.sliding_window"),
        "use_sliding_window": False,
        **_rest(file),
    }


def _rest(file: GgufFile) -> Config:
    base = gguf_decoder.rope_base(file)
    scaling = gguf_decoder.rope_scaling(file)
    return {
        "hidden_act": "silu",
        # mlx-lm reads the first two, transformers from version 5 on the third.
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_parameters": rope_parameters(base, scaling),
    }
