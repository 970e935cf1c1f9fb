"""llama.cpp's ``phi3`` architecture: Phi 3 and Phi 4.

Queries, keys and values are one matrix, gate and up another, in MLX as in the file.
Files with factors for long texts are refused: llama.cpp and transformers rotate a text
by the short factors until it is long, MLX's model always by the long ones, which are
others than those the model has learned most from.
"""

from __future__ import annotations

from typing import Any

from mlx_rsft.models import gguf_decoder
from mlx_rsft.models.gguf_decoder import rope_parameters
from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile

Config = dict[str, Any]

LAYER = "model.layers.{}"
_APART = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
TENSORS: dict[str, tuple[str, str]] = {
    **{
        name: target
        for name, target in gguf_decoder.TENSORS.items()
        if name.removeprefix("blk.{}.").removesuffix(".weight") not in _APART
    },
    "blk.{}.attn_qkv.weight": (f"{LAYER}.self_attn.qkv_proj.weight", "SD"),
    "blk.{}.ffn_norm.weight": (f"{LAYER}.post_attention_layernorm.weight", "D"),
    "blk.{}.ffn_up.weight": (f"{LAYER}.mlp.gate_up_proj.weight", "UD"),
}
LONG_FACTORS = "rope_factors_long.weight"


def config(file: GgufFile) -> Config:
    """The ``config.json`` of a phi3 model, without special tokens and quantisation.

    Neither llama.cpp nor MLX's model heeds the sliding window of these files.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    if LONG_FACTORS in file.tensors:
        file.refuse(
            f"{LONG_FACTORS} is there, and MLX's phi3 model would use it for short "
            "texts too.",
            hint="Take a file for short contexts (4k), or another model.",
        )
    shared = gguf_decoder.config(file)
    gguf_decoder.refuse_other_head_width(file, shared)
    base = gguf_decoder.rope_base(file)
    if gguf_decoder.rope_scaling(file):
        file.refuse("'phi3.rope.scaling.type' is not converted.", hint=ELSEWHERE)
    window = file.get("phi3.attention.sliding_window", 0)
    length = shared["max_position_embeddings"]
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        **shared,
        "pad_token_id": None,  # unless the file names one; transformers says 32000
        "hidden_act": "silu",
        "sliding_window": window or None,
        "original_max_position_embeddings": length,
        "partial_rotary_factor": 1.0,
        "rope_theta": base,
        "rope_scaling": None,
        "rope_parameters": rope_parameters(base, None),
    }
