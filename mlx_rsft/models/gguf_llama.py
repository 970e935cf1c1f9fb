"""llama.cpp's ``llama`` architecture: Llama, Mistral, SmolLM, Falcon 3 and their kin.

What MLX's llama model cannot express is refused by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.models.gguf_file import GgufFile, as_floats

Config = dict[str, Any]
Rows = NDArray[Any]

TENSORS: dict[str, tuple[str, str]] = {
    # D width, F feed-forward width, V vocabulary, Q and K query and key rows
    "token_embd.weight": ("model.embed_tokens.weight", "VD"),
    "output_norm.weight": ("model.norm.weight", "D"),
    "output.weight": ("lm_head.weight", "VD"),
    "blk.{}.attn_norm.weight": ("model.layers.{}.input_layernorm.weight", "D"),
    "blk.{}.attn_q.weight": ("model.layers.{}.self_attn.q_proj.weight", "QD"),
    "blk.{}.attn_k.weight": ("model.layers.{}.self_attn.k_proj.weight", "KD"),
    "blk.{}.attn_v.weight": ("model.layers.{}.self_attn.v_proj.weight", "KD"),
    "blk.{}.attn_output.weight": ("model.layers.{}.self_attn.o_proj.weight", "DQ"),
    "blk.{}.ffn_norm.weight": ("model.layers.{}.post_attention_layernorm.weight", "D"),
    "blk.{}.ffn_gate.weight": ("model.layers.{}.mlp.gate_proj.weight", "FD"),
    "blk.{}.ffn_up.weight": ("model.layers.{}.mlp.up_proj.weight", "FD"),
    "blk.{}.ffn_down.weight": ("model.layers.{}.mlp.down_proj.weight", "DF"),
}
ROPE_FACTORS = "rope_freqs.weight"
UNMAPPED = (
    "llama.expert_count",
    "llama.attention.scale",
    "llama.attention.sliding_window",
    "llama.attention.clamp_kqv",
    "llama.attention.causal",
    "llama.logit_scale",
    "llama.embedding_scale",
    "llama.residual_scale",
    "llama.rope.scale_linear",
)


def config(file: GgufFile) -> Config:
    """The ``config.json`` of a llama model, without special tokens and quantisation.

    Raises:
        ModelError: If a key is missing, or says what MLX's llama model does not do.
    """
    for key in UNMAPPED:
        if key in file.fields:
            file.refuse(f"{key!r} has no counterpart in MLX's llama model.")
    heads = _size(file, "llama.attention.head_count")
    width = _size(file, "llama.embedding_length")
    head_dim = file.get("llama.attention.key_length", width // heads)
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if file.get(key, head_dim) != head_dim:
            file.refuse(f"{key!r} differs from the head width, {head_dim}.")
    epsilon = file.need("llama.attention.layer_norm_rms_epsilon", float)
    theta = _as_written(file.get("llama.rope.freq_base", 10000.0))
    scaling = _rope_scaling(file, head_dim, theta)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(file.need("tokenizer.ggml.tokens", list)),
        "hidden_size": width,
        "intermediate_size": _size(file, "llama.feed_forward_length"),
        "num_hidden_layers": _layers(file),
        "num_attention_heads": heads,
        "num_key_value_heads": file.get("llama.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": _size(file, "llama.context_length"),
        "rms_norm_eps": _as_written(epsilon),
        # mlx-lm reads the first two, transformers from version 5 on the third.
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_parameters": {
            "rope_theta": theta,
            **(scaling or {"rope_type": "default"}),
        },
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }


def rows(name: str, stored: Rows, config: Config) -> Rows:
    """Undo the reordering of query and key rows; other tensors stay as they are.

    MLX and transformers rotate dimension i of a head together with i + head_dim / 2;
    llama.cpp rotates neighbours, and its converter moves the rows to suit. A stored
    row is whole blocks, so integers, scales and biases move as one.
    """
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }.get(name.split(".")[-2])
    if heads is None:
        return stored
    half = config["head_dim"] // 2
    pairs = stored.reshape(heads, half, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(stored.shape)


def _size(file: GgufFile, key: str) -> int:
    value = file.need(key, int)
    if value < 1:
        file.refuse(f"{key!r} is {value}.")
    return value


def _layers(file: GgufFile) -> int:
    layers = _size(file, "llama.block_count")
    if layers > len(file.tensors):
        file.refuse(f"there are {layers} layers, but {len(file.tensors)} tensors.")
    return layers


def _as_written(value: float) -> float:
    """The shortest decimal for a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(file: GgufFile, head_dim: int, theta: float) -> Config | None:
    kind = file.get("llama.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        file.refuse(
            f"RoPE scaling of type {kind!r} cannot be converted.",
            hint="Known: none, linear, and the factors of Llama 3.",
        )
    if ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file, head_dim, theta)
    if kind == "none":
        return None
    factor = file.need("llama.rope.scaling.factor", float)
    return {"rope_type": "linear", "factor": _as_written(factor)}


def _llama3_scaling(file: GgufFile, head_dim: int, theta: float) -> Config:
    """Llama 3's rule, recognised by the factors it leaves in the file.

    The file keeps one divisor per frequency instead of the rule. The largest divisor
    is the rule's factor; the rest of the rule is the same in every release (3.1 to
    3.3) and is accepted only if it gives back every divisor of the file.
    """
    tensor = file.tensors[ROPE_FACTORS]
    stored = as_floats(tensor.data, tensor.tensor_type.name)
    factor, low, high, context = _as_written(float(stored.max())), 1.0, 4.0, 8192
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((context / wavelengths - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-5):
        file.refuse(f"{ROPE_FACTORS} does not follow the rule of Llama 3.")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }
