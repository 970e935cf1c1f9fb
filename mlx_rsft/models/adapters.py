"""Adapters: put on a model, saved and loaded in mlx-lm's own format.

``adapters.safetensors`` and ``adapter_config.json`` load in stock mlx-lm as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft import files
from mlx_rsft.errors import ConfigError, ModelError
from mlx_rsft.settings import AdapterSettings

LAST = re.compile(r"last:(\d+)")


def count_layers(layers: str, num_layers: int) -> int:
    """How many of the last blocks ``last:N`` or ``all`` names.

    Raises:
        ConfigError: If it is neither, or more blocks than the model has.
    """
    if layers == "all":
        return num_layers
    match = LAST.fullmatch(layers)
    if match is None or not 1 <= int(match[1]) <= num_layers:
        raise ConfigError(
            f"{layers!r} does not name blocks of this model, which has {num_layers}.",
            where="adapter.layers",
            hint=f'Write "all", or "last:N" with N from 1 to {num_layers}.',
        )
    return int(match[1])


def attach(model: Any, settings: AdapterSettings) -> dict[str, Any]:
    """Put fresh LoRA layers on a frozen model; draws from mlx's random state.

    Returns:
        What mlx-lm needs to build the same layers: ``adapter_config.json``.

    Raises:
        ConfigError: If the settings do not fit the model.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    config: dict[str, Any] = {
        "fine_tune_type": "lora",
        "num_layers": count_layers(settings.layers, len(model.layers)),
        "lora_parameters": {
            "rank": settings.rank,
            "scale": settings.scale,
            "dropout": settings.dropout,
        },
    }
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"])
    mx.eval(model.trainable_parameters())
    return config


def first_trained_block(model: Any) -> int | None:
    """The lowest block with a trainable parameter: what lies below it stays as it is.

    None if nothing can be said to stay below a block: no block is trained, or something
    outside them is, such as the embeddings. A head named ``lm_head`` lies above them.
    """
    places = {id(block): index for index, block in enumerate(model.layers)}
    blocks = {
        f"{path}.": places[id(module)]
        for path, module in model.named_modules()
        if id(module) in places
    }
    trained: set[int] = set()
    for name, _ in tree_flatten(model.trainable_parameters()):
        owner = [index for path, index in blocks.items() if name.startswith(path)]
        if not owner and not name.startswith("lm_head."):
            return None
        trained.update(owner)
    return min(trained, default=None)


def save(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write the trainable parameters as an mlx-lm adapter: complete or not at all."""
    parameters = dict(tree_flatten(model.trainable_parameters()))
    with files.new_folder(folder) as scratch:
        mx.save_safetensors(str(scratch / "adapters.safetensors"), parameters)
        files.write_json(scratch / "adapter_config.json", config)


def load(model: nn.Module, folder: Path) -> None:
    """Put a saved adapter on a model.

    Raises:
        ModelError: If the folder is no adapter, or not one of this model.
    """
    from mlx_lm.tuner.utils import load_adapters

    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if not (folder / "adapters.safetensors").is_file():
            raise FileNotFoundError("adapters.safetensors is missing")
        load_adapters(model, str(folder))
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as problem:
        raise ModelError(
            f"The adapter cannot be loaded on this model: {problem}",
            where=str(folder),
            hint="Pass the adapter/ folder of a run with the model it was trained on.",
        ) from problem
    _check_complete(model, folder)
    model.eval()


def _check_complete(model: nn.Module, folder: Path) -> None:
    """mlx-lm lets a missing tensor pass, which leaves that layer untrained."""
    wanted = {
        name
        for name, _ in tree_flatten(model.parameters())
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b")
    }
    stored = mx.load(str(folder / "adapters.safetensors"))
    assert isinstance(stored, dict)
    missing = sorted(wanted - set(stored))
    if missing:
        raise ModelError(
            f"The adapter lacks {len(missing)} tensors, the first is {missing[0]}.",
            where=str(folder),
        )
