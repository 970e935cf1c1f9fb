"""A GGUF file as a folder that mlx-lm and transformers load.

Blocks that MLX has too (Q4_0, Q4_1, Q8_0, MXFP4) stay as they are, so nothing is
rounded twice; all others become floats.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rsft import files
from mlx_rsft.errors import ConfigError, ModelError, nearest, raise_together
from mlx_rsft.models import (
    gguf_blocks,
    gguf_families,
    gguf_file,
    gguf_tokenizer,
    gguf_vocabulary,
)
from mlx_rsft.models.gguf_blocks import Floats, Layout
from mlx_rsft.models.gguf_container import Tensor, check_magic
from mlx_rsft.models.gguf_families import Architecture
from mlx_rsft.models.gguf_file import GgufFile

CONVERTER = 3  # count up when the same file would become another folder
FLOAT_TYPES = ("float32", "half")
LONGEST_NAME = 100

Config = dict[str, Any]
Places = dict[str, tuple[str, tuple[int, ...]]]
"""Name and shape in Hugging Face models by name in the file."""


def as_folder(source: Path, *, float_type: str) -> Path:
    """The converted folder of a file, made once and kept in the user's cache.

    The folder is known by the file's SHA-256, ``float_type`` and the converter's
    version; processes that ask at the same time wait for the first.

    Raises:
        ModelError: If the file cannot be used; nothing is left behind.
    """
    check_magic(source)
    kept = files.cache_folder() / "models"
    folder = kept / f"{_digest(source, kept)}-{float_type}-v{CONVERTER}"
    if not folder.exists():
        with files.alone(kept / f".{folder.name}.lock"):
            if not folder.exists():
                convert(source, folder, float_type=float_type)
    return folder


def _digest(source: Path, kept: Path) -> str:
    """The file's SHA-256, computed again only when its path, size or time changes.

    Hashing takes 0.7 s per gigabyte, which every command would pay at its start.
    """
    facts = source.stat()
    name = hashlib.sha256(str(source.resolve()).encode()).hexdigest()
    note = kept / "digests" / f"{name}.json"
    seen = {"bytes": facts.st_size, "changed_ns": facts.st_mtime_ns}
    if note.exists():
        record = json.loads(note.read_text(encoding="utf-8"))
        if record.items() >= seen.items():
            return record["sha256"]
    gguf_file.read(source)  # hashing is slow for what is not going to be used
    digest = files.sha256(source)
    files.write_json(note, {**seen, "sha256": digest})
    return digest


def convert(source: Path, folder: Path, *, float_type: str) -> None:
    """Write the file as a complete model folder, or leave no folder at all.

    Args:
        source: The GGUF file.
        folder: Replaced if it exists.
        float_type: Of scales, biases and whole tensors: ``float32``, or ``half`` for
            the 16-bit type that suits the architecture.

    Raises:
        ModelError: If the file is damaged, partial, contradicts itself, or asks for
            something MLX's model of that architecture does not do.
        ConfigError: If ``float_type`` is another one.
    """
    if float_type not in FLOAT_TYPES:
        hint = nearest(float_type, FLOAT_TYPES)
        raise ConfigError(f"float_type is {float_type!r}.", hint=hint)
    file = gguf_file.read(source)
    architecture = gguf_families.architecture(file)
    if float_type == "half":
        float_type = architecture.half
    config = architecture.config(file)
    places = _places(file, architecture, config)
    documents = gguf_tokenizer.documents(file)
    with files.new_folder(folder) as scratch:
        for name, text in documents.items():
            files.write_text(scratch / name, text)
        weights, layouts = _weights(file, architecture, config, places, float_type)
        model = str(scratch / "model.safetensors")
        mx.save_safetensors(model, weights, metadata={"format": "mlx"})
        special = gguf_vocabulary.special_ids(file)
        record = {
            **config,
            **{f"{name}_token_id": at for name, at in special.items()},
            "torch_dtype": float_type,
            **_quantization(layouts),
        }
        files.write_json(scratch / "config.json", record)


def _places(file: GgufFile, architecture: Architecture, config: Config) -> Places:
    """Where each tensor goes.

    Raises:
        ModelError: If tensors are missing, unknown or of another shape; names each.
    """
    biases = _spelled(architecture.biases_of(config), config)
    expected = _expected(architecture, config) | biases
    found = {name: tensor.shape for name, tensor in file.tensors.items()}
    unknown = sorted(found.keys() - expected.keys() - architecture.consumed)
    problems = [f"{_named(name)} has no counterpart in MLX's model" for name in unknown]
    for name, (_, shape) in expected.items():
        if name not in found and name not in biases:
            problems.append(f"{name} is missing")
        elif found.get(name, shape) != shape:
            wanted = "the metadata and the vocabulary say"
            problems.append(f"{name} has shape {found[name]}; {wanted} {shape}")
    where = str(file.path)
    raise_together([ModelError(problem, where=where) for problem in problems])
    return expected


def _named(name: str) -> str:
    """A stranger's name, fit for a terminal and not endless."""
    plain = name if name.isprintable() else repr(name)
    return plain if len(plain) < LONGEST_NAME else f"{plain[:LONGEST_NAME]}..."


def _expected(architecture: Architecture, config: Config) -> Places:
    """All that a file must have."""
    expected = _spelled(architecture.tensors, config)
    if config["tie_word_embeddings"]:
        del expected["output.weight"]
    return expected


def _spelled(tensors: Mapping[str, tuple[str, str]], config: Config) -> Places:
    """Names and shapes with every layer spelled out."""
    sizes = {
        "D": config["hidden_size"],
        "F": config["intermediate_size"],
        "V": config["vocab_size"],
        "Q": config["num_attention_heads"] * config["head_dim"],
        "K": config["num_key_value_heads"] * config["head_dim"],
        "H": config["head_dim"],
    }
    sizes["S"] = sizes["Q"] + 2 * sizes["K"]
    sizes["U"] = 2 * sizes["F"]
    spelled: Places = {}
    for ours, (theirs, letters) in tensors.items():
        shape = tuple(sizes[letter] for letter in letters)
        for layer in range(config["num_hidden_layers"] if "{}" in ours else 1):
            spelled[ours.format(layer)] = theirs.format(layer), shape
    return spelled


@np.errstate(over="ignore", invalid="ignore")  # what they give, _rounded refuses
def _weights(
    file: GgufFile,
    architecture: Architecture,
    config: Config,
    places: Places,
    float_type: str,
) -> tuple[dict[str, mx.array], dict[str, Layout]]:
    """MLX's parameters by name, and the layout of each quantised module."""
    weights: dict[str, mx.array] = {}
    layouts: dict[str, Layout] = {}
    for ours, (theirs, shape) in places.items():
        tensor = file.tensors.get(ours)
        if tensor is None:  # a bias that llama.cpp does not add
            weights[theirs] = mx.zeros(shape, getattr(mx, float_type))
            continue
        rows = architecture.rows(ours, tensor.data, config)
        parts: dict[str, Any]
        if _stays(ours, tensor):
            kept = gguf_blocks.kept(rows, tensor.kind)
            module = theirs.removesuffix(".weight")
            layouts[module] = kept.layout
            parts = {f"{module}.{part}": value for part, value in kept.parts.items()}
            _rounded(file, ours, np.float32(kept.largest()), float_type)
        else:
            offset = architecture.norm_offset if ours.endswith("norm.weight") else 0
            parts = {theirs: _floats(file, ours, rows) - np.float32(offset)}
        for name, values in parts.items():
            is_float = values.dtype == np.float32
            weights[name] = (
                _rounded(file, ours, values, float_type)
                if is_float
                else mx.array(values)
            )
    return weights, layouts


def _stays(name: str, tensor: Tensor) -> bool:
    """Whether a tensor keeps its blocks.

    MLX looks embeddings of 4-bit floats up as bfloat16, whatever the model's type.
    """
    if len(tensor.shape) < 2 or tensor.kind not in gguf_blocks.KEPT:
        return False
    return (name, tensor.kind) != ("token_embd.weight", "MXFP4")


def _floats(file: GgufFile, name: str, rows: gguf_blocks.Bytes) -> Floats:
    try:
        return gguf_blocks.as_floats(rows, file.tensors[name].kind)
    except NotImplementedError as problem:
        file.refuse(f"{name} cannot be read ({problem}).", hint=gguf_file.ELSEWHERE)


def _rounded(file: GgufFile, name: str, values: Any, float_type: str) -> mx.array:
    result = mx.array(values).astype(getattr(mx, float_type))
    if not mx.isfinite(result).all().item():
        file.refuse(f"{name} holds numbers that are not finite in {float_type}.")
    return result


def _quantization(layouts: Mapping[str, Layout]) -> Config:
    """The commonest layout for all, and an entry per module that has another."""
    if not layouts:
        return {}
    common, _ = Counter(layouts.values()).most_common(1)[0]
    others = {
        module: layout.as_config()
        for module, layout in layouts.items()
        if layout != common
    }
    return {"quantization": {**common.as_config(), **others}}
