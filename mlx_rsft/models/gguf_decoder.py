"""What the decoders of llama.cpp share: tensor names, sizes, the rotation's base.

Their metadata keys differ only in the prefix, which is the architecture's name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.models.gguf_file import GgufFile

Config = dict[str, Any]
Rows = NDArray[Any]

TENSORS: dict[str, tuple[str, str]] = {
    # D width, F feed-forward width, V vocabulary, Q and K query and key rows, H head;
    # S rows of queries, keys and values together, U of gate and up together
    "token_embd.weight": ("model.embed_tokens.weight", "VD"),
    "output_norm.weight": ("model.norm.weight", "D"),
    "output.weight": ("lm_head.weight", "VD"),
    "blk.{}.attn_norm.weight": ("model.layers.{}.input_layernorm.weight", "D"),
    "blk.{}.attn_q.weight": ("model.layers.{}.self_attn.q_proj.weight", "QD"),
    "blk.{}.attn_k.weight": ("model.layers.{}.self_attn.k_proj.weight", "KD"),
    "blk.{}.attn_v.weight": ("model.layers.{}.self_attn.v_proj.weight", "KD"),
    "blk.{}.attn_output.weight": ("model.layers.{}.self_attn.o_proj.weight", "DQ"),
    "blk.{}.ffn_gate.weight": ("model.layers.{}.mlp.gate_proj.weight", "FD"),
    "blk.{}.ffn_up.weight": ("model.layers.{}.mlp.up_proj.weight", "FD"),
    "blk.{}.ffn_down.weight": ("model.layers.{}.mlp.down_proj.weight", "DF"),
}
UNMAPPED = (
    "expert_count",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.causal",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "rope.scale_linear",
)


def config(file: GgufFile, *unmapped: str) -> Config:
    """The part of ``config.json`` that every decoder has.

    Args:
        file: The file.
        unmapped: Further keys (without prefix) that MLX's model cannot express.

    Raises:
        ModelError: If a key is missing, or says what MLX's model does not do.
    """
    prefix = file.need("general.architecture", str)
    for key in (*UNMAPPED, *unmapped):
        if f"{prefix}.{key}" in file.metadata:
            file.refuse(f"'{prefix}.{key}' has no counterpart in MLX's {prefix} model.")
    heads = file.size(f"{prefix}.attention.head_count")
    width = file.size(f"{prefix}.embedding_length")
    head_dim = file.get(f"{prefix}.attention.key_length", width // heads)
    for key in (f"{prefix}.attention.value_length", f"{prefix}.rope.dimension_count"):
        if file.get(key, head_dim) != head_dim:
            file.refuse(f"{key!r} differs from the head width, {head_dim}.")
    if head_dim < 2 or head_dim % 2:
        file.refuse(f"the head width is {head_dim}; halves of it are rotated.")
    kv_heads = file.size(f"{prefix}.attention.head_count_kv", heads)
    if heads % kv_heads:
        file.refuse(f"{heads} heads cannot share {kv_heads} of keys and values.")
    epsilon = file.positive(f"{prefix}.attention.layer_norm_rms_epsilon")
    layers = file.size(f"{prefix}.block_count")
    if layers > len(file.tensors):
        file.refuse(f"there are {layers} layers, but {len(file.tensors)} tensors.")
    return {
        "vocab_size": len(file.need("tokenizer.ggml.tokens", list)),
        "hidden_size": width,
        "intermediate_size": file.size(f"{prefix}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "attention_bias": False,
        "max_position_embeddings": file.size(f"{prefix}.context_length"),
        "rms_norm_eps": as_written(epsilon),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }


def refuse_other_head_width(file: GgufFile, shared: Config) -> None:
    """Refuse a head width that MLX's model, which works it out itself, would not take.

    Raises:
        ModelError: If it is not the width divided by the number of heads.
    """
    width, heads = shared["hidden_size"], shared["num_attention_heads"]
    if shared["head_dim"] * heads != width:
        file.refuse(
            f"the head width is {shared['head_dim']}; "
            f"MLX's model takes {width} / {heads}."
        )


def rope_base(file: GgufFile) -> float:
    """The base of the rotation's frequencies."""
    prefix = file.need("general.architecture", str)
    return as_written(file.positive(f"{prefix}.rope.freq_base", 10000.0))


def rope_scaling(file: GgufFile) -> Config | None:
    """How the rotation is slowed down by a number, or None where it is not.

    Raises:
        ModelError: If it is slowed down in another way.
    """
    prefix = file.need("general.architecture", str)
    kind = file.get(f"{prefix}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        file.refuse(
            f"RoPE scaling of type {kind!r} cannot be converted.",
            hint="Known: none, linear, and the factors of Llama 3.",
        )
    if kind == "none":
        return None
    factor = file.positive(f"{prefix}.rope.scaling.factor")
    return {"rope_type": "linear", "factor": as_written(factor)}


def rope_parameters(base: float, scaling: Config | None) -> Config:
    """A rotation in the words of transformers from version 5 on."""
    return {"rope_theta": base, **(scaling or {"rope_type": "default"})}


def as_written(value: float) -> float:
    """The shortest decimal for a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def as_stored(name: str, stored: Rows, config: Config) -> Rows:
    """Rows that need no reordering."""
    return stored
