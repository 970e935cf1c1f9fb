"""llama.cpp's ``llama`` architecture: Llama, Mistral, SmolLM, Falcon 3 and their kin.

What MLX's llama model cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.models import gguf_decoder
from mlx_rsft.models.gguf_blocks import as_floats
from mlx_rsft.models.gguf_decoder import as_written, rope_parameters
from mlx_rsft.models.gguf_file import GgufFile

Config = dict[str, Any]
Rows = NDArray[Any]

TENSORS: dict[str, tuple[str, str]] = {
    **gguf_decoder.TENSORS,
    "blk.{}.ffn_norm.weight": ("model.layers.{}.post_attention_layernorm.weight", "D"),
}
_ATTENTION = "model.layers.{}.self_attn"
_MLP = "model.layers.{}.mlp"
BIASES: dict[str, dict[str, tuple[str, str]]] = {
    # the field of config.json that gives MLX's model all of them: those
    "attention_bias": {
        "blk.{}.attn_q.bias": (f"{_ATTENTION}.q_proj.bias", "Q"),
        "blk.{}.attn_k.bias": (f"{_ATTENTION}.k_proj.bias", "K"),
        "blk.{}.attn_v.bias": (f"{_ATTENTION}.v_proj.bias", "K"),
        "blk.{}.attn_output.bias": (f"{_ATTENTION}.o_proj.bias", "D"),
    },
    "mlp_bias": {
        "blk.{}.ffn_gate.bias": (f"{_MLP}.gate_proj.bias", "F"),
        "blk.{}.ffn_up.bias": (f"{_MLP}.up_proj.bias", "F"),
        "blk.{}.ffn_down.bias": (f"{_MLP}.down_proj.bias", "D"),
    },
}
"""llama.cpp adds each that a file has; MLX's model adds all of a kind, or none."""
ROPE_FACTORS = "rope_freqs.weight"


def config(file: GgufFile) -> Config:
    """The ``config.json`` of a llama model, without special tokens and quantisation.

    Raises:
        ModelError: If a key is missing, or says what MLX's llama model does not do.
    """
    shared = gguf_decoder.config(file, "attention.sliding_window")
    base = gguf_decoder.rope_base(file)
    scaling = gguf_decoder.rope_scaling(file)
    if ROPE_FACTORS in file.tensors:
        scaling = _llama3_scaling(file, shared["head_dim"], base)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shared,
        "hidden_act": "silu",
        **{flag: _has(file, shared, tensors) for flag, tensors in BIASES.items()},
        # mlx-lm reads the first two, transformers from version 5 on the third.
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_parameters": rope_parameters(base, scaling),
    }


def _has(file: GgufFile, shared: Config, tensors: Mapping[str, object]) -> bool:
    blocks = range(shared["num_hidden_layers"])
    return any(
        name.format(number) in file.tensors for name in tensors for number in blocks
    )


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


def _llama3_scaling(file: GgufFile, head_dim: int, theta: float) -> Config:
    """Llama 3's rule, recognised by the factors it leaves in the file.

    The file keeps one divisor per frequency instead of the rule. The largest divisor
    is the rule's factor; the rest of the rule is the same in every release (3.1 to
    3.3) and is accepted only if it gives back every divisor of the file.
    """
    tensor = file.tensors[ROPE_FACTORS]
    problem = f"{ROPE_FACTORS} does not follow the rule of Llama 3."
    if (tensor.kind, tensor.shape) != ("F32", (head_dim // 2,)):
        file.refuse(problem)
    stored = as_floats(tensor.data, tensor.kind)
    factor, low, high, context = as_written(float(stored.max())), 1.0, 4.0, 8192
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((context / wavelengths - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not factor >= 1 or not np.allclose(stored, expected, rtol=1e-5):
        file.refuse(problem)
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }
