"""A whole model in MLX's format, with the adapter in its weights: LM Studio, mlx-lm.

The sums are made in float32 and rounded once, to the type the base model's file has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rsft import files
from mlx_rsft.export import merging, model_folder, rounding
from mlx_rsft.export.live import Live
from mlx_rsft.export.merging import Weights
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import tensor_file

SHARD_BYTES = 5 << 30
INDEX = "model.safetensors.index.json"
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write the merged model, quantised like its base if that is asked for.

    Raises:
        ConfigError: If it is to be quantised and the base is not.
        CheckFailed: If quantising takes away what the adapter does; gives the numbers.
    """
    types = stored_types(live)
    tensors = merging.weights(live)
    notes: list[str] = []
    if choices.requantize:
        kinds = rounding.kinds(live)
        tensors, table = rounding.rounded(
            tensors, kinds, rounding.unchanged(live, kinds)
        )
        instead = "Leave --requantize out"
        notes.append(rounding.check(live, tensors, kinds, "--requantize", instead))
    else:
        table = {}
        if found := rounding.held(live):
            notes.append(
                f"the base model is quantised ({found}); the merged weights are whole, "
                "so the files are larger. --requantize quantises them again"
            )
    _save(_cast(tensors, types), folder)
    base = model_folder.read(live.path)
    record = model_folder.config(base, types[""], table)
    files.write_json(folder / "config.json", record)
    model_folder.copy(live.path, folder)
    return Product("fused", folder, tuple(notes))


def stored_types(live: Live) -> dict[str, str]:
    """The types of the base model's float tensors by name; ``""`` for all others."""
    told = model_folder.read(live.path)
    found: dict[str, str] = {}
    for path in sorted(live.path.glob("*.safetensors")):
        for name, entry in tensor_file.entries(path).items():
            if entry.dtype in NAMES:
                found[name] = NAMES[entry.dtype]
    usual = told.get("torch_dtype") or told.get("dtype")
    if usual not in NAMES.values():
        usual = max(NAMES.values(), key=list(found.values()).count)
    return {**found, "": str(usual)}


def _cast(tensors: Weights, types: Mapping[str, str]) -> Weights:
    return {
        name: value.astype(getattr(mx, types.get(name, types[""])))
        if value.dtype in merging.FLOATS
        else value
        for name, value in tensors.items()
    }


def _save(tensors: Weights, folder: Path) -> None:
    """One file up to 5 GiB, else several with an index, as mlx-lm and others read."""
    shards = _shards(tensors)
    index: dict[str, Any] = {"metadata": {"total_size": 0}, "weight_map": {}}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        name = name if len(shards) > 1 else model_folder.WEIGHTS
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "mlx"})
        index["weight_map"].update(dict.fromkeys(shard, name))
        index["metadata"]["total_size"] += sum(value.nbytes for value in shard.values())
    files.write_json(folder / INDEX, index)


def _shards(tensors: Weights) -> list[Weights]:
    shards: list[Weights] = [{}]
    held = 0
    for name, value in tensors.items():
        if shards[-1] and held + value.nbytes > SHARD_BYTES:
            shards.append({})
            held = 0
        shards[-1][name] = value
        held += value.nbytes
    return shards
