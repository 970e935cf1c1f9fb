"""A GGUF file as a folder that mlx-lm and transformers load.

4- and 8-bit blocks (Q4_0, Q4_1, Q8_0) keep their integers, so nothing is rounded twice;
all others become floats. A new architecture is one more member of ``ARCHITECTURES``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_rsft import files
from mlx_rsft.errors import ConfigError, ModelError, nearest, raise_together
from mlx_rsft.models import (
    gguf_decoder,
    gguf_file,
    gguf_gemma,
    gguf_llama,
    gguf_tokenizer,
    gguf_vocabulary,
)
from mlx_rsft.models.gguf_file import ELSEWHERE, GROUP, Floats, GgufFile

CONVERTER = 2  # count up when the same file would become another folder
FLOAT_TYPES = ("float32", "half")

Config = dict[str, Any]


class Architecture(NamedTuple):
    """How one architecture of llama.cpp reads as a Hugging Face model."""

    config: Callable[[GgufFile], Config]
    tensors: Mapping[str, tuple[str, str]]  # GGUF name: (Hugging Face name, shape)
    consumed: frozenset[str] = frozenset()  # tensors that ``config`` has read
    rows: Callable[[str, NDArray[Any], Config], NDArray[Any]] = gguf_decoder.as_stored
    norm_offset: float = 0.0  # what a norm has more than in Hugging Face models
    half: str = "float16"  # the 16-bit type that its activations fit


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        gguf_llama.config,
        gguf_llama.TENSORS,
        frozenset({gguf_llama.ROPE_FACTORS}),
        gguf_llama.rows,
    ),
    "gemma3": Architecture(
        gguf_gemma.config,
        gguf_gemma.TENSORS,
        norm_offset=gguf_gemma.NORM_OFFSET,
        half=gguf_gemma.HALF,
    ),
}


def as_folder(source: Path, *, float_type: str) -> Path:
    """The converted folder of a file, made once and kept in the user's cache.

    The folder is known by the file's SHA-256, ``float_type`` and the converter's
    version; processes that ask at the same time wait for the first.

    Raises:
        ModelError: If the file cannot be used; nothing is left behind.
    """
    gguf_file.check_magic(source)
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
    architecture = _architecture(file)
    if float_type == "half":
        float_type = architecture.half
    config = architecture.config(file)
    names = _names(file, architecture, config)
    documents = gguf_tokenizer.documents(file)
    with files.new_folder(folder) as scratch:
        for name, text in documents.items():
            files.write_text(scratch / name, text)
        weights, bits = _weights(file, architecture, config, names, float_type)
        model = str(scratch / "model.safetensors")
        mx.save_safetensors(model, weights, metadata={"format": "mlx"})
        special = gguf_vocabulary.special_ids(file)
        record = {
            **config,
            **{f"{name}_token_id": at for name, at in special.items()},
            "torch_dtype": float_type,
            **_quantization(bits),
        }
        files.write_json(scratch / "config.json", record)


def _architecture(file: GgufFile) -> Architecture:
    name = file.need("general.architecture", str)
    if name not in ARCHITECTURES:
        file.refuse(
            f"GGUF files of architecture {name!r} cannot be converted; "
            f"supported: {', '.join(ARCHITECTURES)}.",
            hint=ELSEWHERE,
        )
    return ARCHITECTURES[name]


def _names(
    file: GgufFile, architecture: Architecture, config: Config
) -> dict[str, str]:
    """The tensors' names here and in Hugging Face models.

    Raises:
        ModelError: If tensors are missing, unknown or of another shape; names each.
    """
    expected = _expected(architecture, config)
    found = {
        name: tuple(int(size) for size in reversed(tensor.shape))
        for name, tensor in file.tensors.items()
    }
    unknown = found.keys() - expected.keys() - architecture.consumed
    problems = [f"{name} has no counterpart in MLX's model" for name in sorted(unknown)]
    for name, (_, shape) in expected.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name] != shape:
            wanted = "the metadata and the vocabulary say"
            problems.append(f"{name} has shape {found[name]}; {wanted} {shape}")
    where = str(file.path)
    raise_together([ModelError(problem, where=where) for problem in problems])
    return {name: theirs for name, (theirs, _) in expected.items()}


def _expected(
    architecture: Architecture, config: Config
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF name to Hugging Face name and shape, every layer spelled out."""
    sizes = {
        "D": config["hidden_size"],
        "F": config["intermediate_size"],
        "V": config["vocab_size"],
        "Q": config["num_attention_heads"] * config["head_dim"],
        "K": config["num_key_value_heads"] * config["head_dim"],
        "H": config["head_dim"],
    }
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for ours, (theirs, letters) in architecture.tensors.items():
        shape = tuple(sizes[letter] for letter in letters)
        for layer in range(config["num_hidden_layers"] if "{}" in ours else 1):
            expected[ours.format(layer)] = theirs.format(layer), shape
    if config["tie_word_embeddings"]:
        del expected["output.weight"]
    return expected


@np.errstate(over="ignore", invalid="ignore")  # what they give, _rounded refuses
def _weights(
    file: GgufFile,
    architecture: Architecture,
    config: Config,
    names: Mapping[str, str],
    float_type: str,
) -> tuple[dict[str, mx.array], dict[str, int]]:
    """MLX's parameters by name, and the bits of each quantised module."""
    weights: dict[str, mx.array] = {}
    bits: dict[str, int] = {}
    for ours, theirs in names.items():
        tensor = file.tensors[ours]
        kind = tensor.tensor_type.name
        rows = architecture.rows(ours, tensor.data, config)
        floats: dict[str, Floats]
        if kind in gguf_file.AFFINE:
            affine = gguf_file.as_affine(rows, kind)
            module = theirs.removesuffix(".weight")
            bits[module] = affine.bits
            weights[theirs] = mx.array(affine.packed)
            floats = {
                f"{module}.scales": affine.scales,
                f"{module}.biases": affine.biases,
            }
        else:
            offset = architecture.norm_offset if ours.endswith("norm.weight") else 0
            floats = {theirs: gguf_file.as_floats(rows, kind) - np.float32(offset)}
        for name, values in floats.items():
            weights[name] = _rounded(file, ours, values, float_type)
    return weights, bits


def _rounded(file: GgufFile, name: str, values: Floats, float_type: str) -> mx.array:
    result = mx.array(values).astype(getattr(mx, float_type))
    if not mx.isfinite(result).all().item():
        file.refuse(f"{name} holds numbers that are not finite in {float_type}.")
    return result


def _quantization(bits: Mapping[str, int]) -> Config:
    """The commonest width for all, and an entry per module that has another."""
    if not bits:
        return {}
    common, _ = Counter(bits.values()).most_common(1)[0]
    others = {
        module: {"group_size": GROUP, "bits": width}
        for module, width in bits.items()
        if width != common
    }
    return {"quantization": {"group_size": GROUP, "bits": common, **others}}
