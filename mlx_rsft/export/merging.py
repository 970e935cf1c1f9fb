"""An adapter multiplied into the weights it sits on: whole matrices, by mlx's names."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.export import dense
from mlx_rsft.export.live import Live
from mlx_rsft.models import fitted
from mlx_rsft.models.fitted import Place

Weights = dict[str, mx.array]
FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def weights(live: Live) -> Weights:
    """Every parameter of the model without its adapter, and with what that does.

    What is quantised is made whole. Lazy: each matrix is computed, in float32, when it
    is asked for, so that one at a time is in memory.
    """
    places = fitted.places(live.model)
    with dense.bare(live) as model:
        flat: Any = tree_flatten(model.parameters())
        found = Weights(flat)
        for path, module in model.named_modules():
            if "scales" in module:
                for leaf in ("scales", "biases"):
                    found.pop(f"{path}.{leaf}", None)
                found[f"{path}.weight"] = whole(module)
    for place in places:
        found[f"{place.path}.weight"] = merged(place)
    return found


def whole(module: Any) -> mx.array:
    """The weight of a linear layer or embedding, dense, float32."""
    if "scales" not in module:
        return module.weight.astype(mx.float32)
    return mx.dequantize(
        module.weight,
        module.scales,
        module.get("biases"),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    ).astype(mx.float32)


def merged(place: Place) -> mx.array:
    """The weight that does alone what the module and its adapter do together, float32.

    The same products as in mlx-lm's layers, which hold the factors of a linear layer as
    ``x A B``, of an embedding as rows, of experts as ``B A``.
    """
    module: Any = place.module
    a, b = (module[name].astype(mx.float32) for name in ("lora_a", "lora_b"))
    if a.ndim == 3:
        delta = b @ a
    elif isinstance(place.bare, nn.Embedding | nn.QuantizedEmbedding):
        delta = a @ b
    else:
        delta = (a @ b).T
    result = whole(place.bare) + module.scale * delta
    if "m" not in module:
        return result
    length = mx.linalg.norm(result, axis=1, keepdims=True)
    return module["m"].astype(mx.float32)[:, None] / length * result
