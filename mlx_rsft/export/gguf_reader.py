"""A LoRA adapter in a GGUF file, read as llama.cpp reads it and put on mlx's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rsft.errors import ModelError
from mlx_rsft.export.gguf_lora import HEADS
from mlx_rsft.export.live import Floats
from mlx_rsft.models import families, gguf_container
from mlx_rsft.models.families import FAMILIES
from mlx_rsft.models.gguf_blocks import as_floats
from mlx_rsft.models.stored import Stored

SUFFIXES = {".weight.lora_a": "lora_a", ".weight.lora_b": "lora_b"}


def read(model: Any, path: Path) -> Stored:
    """The adapter of a file as mlx-lm has it.

    Raises:
        ModelError: If it is no LoRA adapter, or not one of this model.
    """
    file = gguf_container.read(path)
    said = file.metadata.get
    family = FAMILIES[model.model_type]
    facts = (said("general.type"), said("adapter.type"), said("general.architecture"))
    if facts != ("adapter", "lora", family.gguf):
        raise ModelError(
            f"This is {facts}, no LoRA adapter of {family.gguf}.", where=str(path)
        )
    names = {
        families.gguf_tensor(family, place): place for place, _ in model.named_modules()
    }
    tensors: dict[str, mx.array] = {}
    ranks: dict[str, int] = {}
    for name, tensor in file.tensors.items():
        suffix = name[-len(".weight.lora_a") :]
        stem = name.removesuffix(suffix)
        if suffix not in SUFFIXES or not names.get(stem):
            raise ModelError(f"{name} is unknown.", where=str(path))
        values = as_floats(tensor.data, tensor.kind)
        if suffix.endswith("b"):
            ranks[stem] = values.shape[1]
            if family.rotated:
                values = _back(values, model, stem)
        tensors[f"{names[stem]}.{SUFFIXES[suffix]}"] = mx.array(values).T
    return _stored(tensors, set(ranks.values()), said("adapter.lora.alpha"), path)


def _stored(
    tensors: dict[str, mx.array], ranks: set[int], alpha: float | None, path: Path
) -> Stored:
    if len(ranks) != 1:
        raise ModelError(f"Its ranks are {sorted(ranks)}, not one.", where=str(path))
    rank = ranks.pop()
    keys = sorted({name.rpartition(".")[0] for name in tensors})
    parameters = {
        "rank": rank,
        "scale": alpha / rank if alpha else 1.0,
        "dropout": 0.0,
        "keys": keys,
    }
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters}
    return Stored(config, tensors)


def _back(rows: Floats, model: Any, stem: str) -> Floats:
    """Rows as mlx has them: dimension i of a head rotates with i + head_dim / 2."""
    heads = HEADS.get(stem.rpartition(".")[2])
    if heads is None:
        return rows
    number = int(getattr(model.args, heads))
    order = np.arange(len(rows)).reshape(number, -1, 2)
    return rows[np.concatenate([order[..., 0], order[..., 1]], axis=1).ravel()]
