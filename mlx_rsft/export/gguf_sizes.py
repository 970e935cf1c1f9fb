"""Metadata that llama.cpp needs of a model that did not come from a GGUF file.

The same facts as in ``config.json``, under the names of each architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlx_rsft.errors import ConfigError
from mlx_rsft.export import model_folder
from mlx_rsft.export.gguf_fields import Fields, field
from mlx_rsft.export.live import Floats, Live

Facts = Mapping[str, Any]
ROPE_FACTORS = "rope_freqs.weight"


def fields(live: Live, architecture: str) -> Fields:
    """The metadata of the model itself, without its tokenizer.

    Raises:
        ConfigError: If the architecture, or what the model does, is not known here.
    """
    if architecture not in SIZES:
        raise ConfigError(
            f"The metadata of llama.cpp's {architecture} model are not known here.",
            where="--to gguf-merged",
            hint=f"Known: {', '.join(SIZES)}. Give the base model as a .gguf file, "
            "whose metadata are copied.",
        )
    found = SIZES[architecture](facts(live))
    named = {f"{architecture}.{key}": field(value) for key, value in found.items()}
    return {
        "general.architecture": field(architecture),
        "general.type": field("model"),
        "general.name": field(live.base_name.rpartition("/")[2]),
        **named,
    }


def facts(live: Live) -> dict[str, Any]:
    """``config.json`` with the defaults of mlx-lm's model class filled in."""
    args: Any = vars(live.model.args)
    told = {k: v for k, v in model_folder.read(live.path).items() if v is not None}
    return {**{k: v for k, v in args.items() if v is not None}, **told}


def _decoder(told: Facts) -> dict[str, Any]:
    heads = int(told["num_attention_heads"])
    width = int(told["hidden_size"])
    head_dim = int(told.get("head_dim") or width // heads)
    theta = model_folder.rotation(told).get("rope_theta", 10000.0)
    return {
        "context_length": int(told.get("max_position_embeddings", 2048)),
        "embedding_length": width,
        "block_count": int(told["num_hidden_layers"]),
        "feed_forward_length": int(told["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(told.get("num_key_value_heads") or heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(told["rms_norm_eps"]),
        "rope.freq_base": float(theta),
        **_slowed(told),
    }


def _slowed(told: Facts) -> dict[str, Any]:
    rule: Any = told.get("rope_scaling") or {}
    kind = rule.get("rope_type", rule.get("type", "default"))
    if kind in ("default", "llama3"):  # the latter is a tensor
        return {}
    if kind == "linear":
        factor = float(rule["factor"])
        return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    raise ConfigError(
        f"RoPE scaling of type {kind!r} is not known here.",
        where="--to gguf-merged",
        hint="Give the base model as a .gguf file, whose metadata are copied.",
    )


def _llama(told: Facts) -> dict[str, Any]:
    found = _decoder(told)
    if "sliding_attention" in (told.get("layer_types") or ()):
        raise ConfigError(
            "Its sliding windows have no counterpart in llama.cpp's llama model.",
            where="--to gguf-merged",
        )
    return {
        **found,
        "vocab_size": int(told["vocab_size"]),
        "rope.dimension_count": found["attention.key_length"],
    }


def _gemma3(told: Facts) -> dict[str, Any]:
    pattern = int(told.get("sliding_window_pattern", 6))
    if pattern != 6:
        raise ConfigError(
            f"Every {pattern}th of its layers sees all; llama.cpp assumes every sixth.",
            where="--to gguf-merged",
        )
    return {
        **_decoder(told),
        "attention.sliding_window": int(told["sliding_window"]),
        "rope.freq_base_swa": float(told.get("rope_local_base_freq", 10000.0)),
    }


SIZES: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _decoder,
    "qwen3": _decoder,
    "gemma3": _gemma3,
}


def rope_factors(live: Live) -> Floats | None:
    """The divisor of each frequency by Llama 3's rule; None where it is not used."""
    told = facts(live)
    rule: Any = told.get("rope_scaling") or {}
    if rule.get("rope_type", rule.get("type")) != "llama3":
        return None
    found = _decoder(told)
    head_dim, theta = found["attention.key_length"], found["rope.freq_base"]
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    lengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    turns = rule["original_max_position_embeddings"] / lengths
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rule["factor"] + smooth)).astype(np.float32)
