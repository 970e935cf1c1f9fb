"""llama.cpp's ``gemma2`` and ``gemma3`` architectures: Gemma's text models, every size.

What MLX's models cannot express is refused by name. Some numbers are not in most files;
they are those that llama.cpp then assumes.
"""

from __future__ import annotations

from typing import Any

from mlx_rsft.models import gguf_decoder
from mlx_rsft.models.gguf_decoder import as_written, rope_parameters
from mlx_rsft.models.gguf_file import GgufFile

Config = dict[str, Any]

LAYER = "model.layers.{}"
TENSORS_2: dict[str, tuple[str, str]] = {
    **gguf_decoder.TENSORS,
    "blk.{}.post_attention_norm.weight": (
        f"{LAYER}.post_attention_layernorm.weight",
        "D",
    ),
    "blk.{}.ffn_norm.weight": (f"{LAYER}.pre_feedforward_layernorm.weight", "D"),
    "blk.{}.post_ffw_norm.weight": (f"{LAYER}.post_feedforward_layernorm.weight", "D"),
}
TENSORS_3: dict[str, tuple[str, str]] = {
    **TENSORS_2,
    "blk.{}.attn_q_norm.weight": (f"{LAYER}.self_attn.q_norm.weight", "H"),
    "blk.{}.attn_k_norm.weight": (f"{LAYER}.self_attn.k_norm.weight", "H"),
}
NORM_OFFSET = 1.0  # MLX and transformers keep a norm's distance from 1
# Its activations leave the range of float16: log-probabilities are then 4 nats wrong.
HALF = "bfloat16"
GLOBAL_EVERY = 6
LOCAL_ROPE_BASE = 10000.0
LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
WINDOW_2 = 4096
ATTENTION_CAP, FINAL_CAP = 50.0, 30.0


def config_2(file: GgufFile) -> Config:
    """The ``config.json`` of a gemma2 model, without tokens and quantisation.

    MLX's model has no sliding window. Up to the window's length that makes no
    difference, so the folder is one for texts of that length.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    shared = gguf_decoder.config(file)
    base = gguf_decoder.rope_base(file)
    if gguf_decoder.rope_scaling(file):
        file.refuse("'gemma2.rope.scaling.type' has no counterpart in MLX's gemma2.")
    if not shared["tie_word_embeddings"]:
        file.refuse("output.weight has no counterpart in MLX's gemma2 model.")
    window = file.size("gemma2.attention.sliding_window", WINDOW_2)
    length = min(window, shared["max_position_embeddings"])
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **shared,
        "max_position_embeddings": length,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(file, shared),
        "sliding_window": window,
        "attn_logit_softcapping": file.positive(
            "gemma2.attn_logit_softcapping", ATTENTION_CAP
        ),
        "final_logit_softcapping": file.positive(
            "gemma2.final_logit_softcapping", FINAL_CAP
        ),
        "rope_theta": base,
        "rope_parameters": rope_parameters(base, None),
    }


def config_3(file: GgufFile) -> Config:
    """The ``config.json`` of a gemma3_text model, without tokens and quantisation.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    shared = gguf_decoder.config(
        file, "final_logit_softcapping", "attn_logit_softcapping"
    )
    base = gguf_decoder.rope_base(file)
    scaling = gguf_decoder.rope_scaling(file)
    every = file.size("gemma3.attention.sliding_window_pattern", GLOBAL_EVERY)
    if every > shared["num_hidden_layers"]:
        file.refuse(
            f"every layer has a sliding window ({shared['num_hidden_layers']} layers, "
            f"the pattern is {every}), which MLX's gemma3 model does not take."
        )
    local_base = as_written(file.positive("gemma3.rope.freq_base_swa", LOCAL_ROPE_BASE))
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **shared,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(file, shared),
        "sliding_window": file.size("gemma3.attention.sliding_window"),
        "sliding_window_pattern": every,
        # mlx-lm reads the first three, transformers from version 5 on the fourth.
        "rope_theta": base,
        "rope_local_base_freq": local_base,
        "rope_scaling": scaling,
        "rope_parameters": {
            "full_attention": rope_parameters(base, scaling),
            "sliding_attention": rope_parameters(local_base, None),
        },
    }


def _query_scalar(file: GgufFile, shared: Config) -> int:
    """Queries are divided by its root: the head width, but for the 27B models."""
    largest = LAYERS_OF_27B[file.need("general.architecture", str)]
    if shared["num_hidden_layers"] == largest:
        return shared["hidden_size"] // shared["num_attention_heads"]
    return shared["head_dim"]
