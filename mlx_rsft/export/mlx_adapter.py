"""A clean mlx-lm adapter: what its loader needs, and nothing of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_rsft import files
from mlx_rsft.errors import ConfigError
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import fitted

KEPT = ("rank", "scale", "dropout", "keys")
"""What mlx-lm's loader reads of ``lora_parameters``."""


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write the adapter for mlx-lm, its server, and ``mlx-rsft --adapter``.

    Raises:
        ConfigError: If the weights themselves were trained.
    """
    del choices
    refuse_full(live, "mlx")
    flat: Any = tree_flatten(live.model.parameters())
    parameters = dict[str, mx.array](flat)
    names = {n for place in fitted.places(live.model) for n in place.factors()}
    tensors = {name: parameters[name] for name in sorted(names)}
    weights = str(folder / "adapters.safetensors")
    mx.save_safetensors(weights, tensors, metadata={"format": "mlx"})
    files.write_json(folder / "adapter_config.json", clean(live.adapter_config))
    return Product("mlx", folder)


def clean(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the loader needs of an ``adapter_config.json``, without local paths."""
    held = config["lora_parameters"]
    return {
        "fine_tune_type": config["fine_tune_type"],
        "num_layers": config["num_layers"],
        "lora_parameters": {key: held[key] for key in KEPT if key in held},
    }


def refuse_full(live: Live, target: str) -> None:
    """Raise ConfigError if there are no factors to be written as an adapter."""
    if live.is_full:
        raise ConfigError(
            f"Full fine-tuning has no adapter that {target} could hold.",
            where="--to",
            hint="Pass --to fused, which writes the whole model.",
        )
