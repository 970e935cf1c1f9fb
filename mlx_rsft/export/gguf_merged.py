"""A whole model as one GGUF file, with the adapter in its weights.

Metadata and tokenizer are the base file's own where the model came from one; else they
are made from its folder. K-quants are llama.cpp's own business: ``llama-quantize`` is
asked where it is installed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from mlx_rsft.errors import ConfigError, MachineError
from mlx_rsft.export import gguf_fields, gguf_sizes, gguf_tensors, gguf_words, rounding
from mlx_rsft.export.gguf_fields import Fields
from mlx_rsft.export.gguf_tensors import Tensor
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import gguf_file
from mlx_rsft.models.families import Family
from mlx_rsft.models.gguf_blocks import as_floats

if TYPE_CHECKING:
    import gguf

QUANTIZER = "llama-quantize"
BY_QUANTIZER = (
    *("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m"),
    *("q5_k_s", "q5_k_m", "q6_k"),
)
"""What the ``gguf`` package reads but does not write."""
TYPES = (*gguf_fields.FILE_TYPES, *BY_QUANTIZER)


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write ``NAME-TYPE.gguf``.

    Raises:
        ConfigError: If the model or the type is not known here; names what is not.
        MachineError: If ``llama-quantize`` is needed and not there, or fails.
    """
    path = file(live, folder, choices.merged_type)
    return Product("gguf-merged", path, tuple(notes(live, choices.merged_type)))


def notes(live: Live, kind: str) -> list[str]:
    """What a type costs, where that is more than rounding to 16 bits.

    Raises:
        CheckFailed: If that takes away what the adapter does.
    """
    if kind not in (gguf_tensors.COARSE, gguf_tensors.FINE):
        return []
    rounded = gguf_tensors.as_read(live, kind)
    instead = "Pass a --gguf-type of more bits"
    return [rounding.check(live, rounded, {}, "--gguf-type", instead)]


def file(live: Live, folder: Path, kind: str) -> Path:
    """Write the merged model into a folder; returns the file. Raises as ``write``."""
    name = live.base_name.rpartition("/")[2]
    target = folder / f"{name}-{kind}.gguf"
    if kind not in BY_QUANTIZER:
        _write(live, target, kind)
        return target
    program = _quantizer(kind)
    whole = folder / f"{name}-f32.gguf"
    _write(live, whole, "f32")
    _run([program, str(whole), str(target), kind.upper()], target)
    whole.unlink()
    return target


def _write(live: Live, target: Path, kind: str) -> None:
    import gguf

    family = gguf_tensors.family_of(live)
    fields = gguf_fields.of_type(kind)
    tensors = list(gguf_tensors.tensors(live, family, kind))
    if live.gguf:
        base = gguf_file.read(live.gguf)
        fields = {**gguf_fields.copied(base), **fields}
        tensors += _other(base, {tensor.name for tensor in tensors})
    else:
        fields = {**_made(live, family, len(tensors[0].values)), **fields}
        factors = gguf_sizes.rope_factors(live)
        if factors is not None:
            name = gguf_sizes.ROPE_FACTORS
            tensors.append(Tensor(name, mx.array(factors), "f32"))
    writer = gguf.GGUFWriter(target, family.gguf)
    gguf_fields.add_to(writer, fields)
    _stream(writer, tensors)


def _made(live: Live, family: Family, rows: int) -> Fields:
    return {
        **gguf_sizes.fields(live, family.gguf),
        **gguf_words.fields(live.tokenizer, rows),
    }


def _other(base: gguf_file.GgufFile, held: set[str]) -> list[Tensor]:
    """Tensors of the base file that are no parameters, such as RoPE factors.

    Raises:
        ConfigError: If the merged model lacks a matrix of the base file.
    """
    found: list[Tensor] = []
    for name, tensor in base.tensors.items():
        if name in held:
            continue
        if len(tensor.shape) > 1:
            raise ConfigError(
                f"{name} of the base file has no counterpart in MLX's model.",
                where=str(base.path.name),
            )
        values = as_floats(tensor.data, tensor.kind)
        found.append(Tensor(name, mx.array(values), "f32"))
    return found


def _stream(writer: gguf.GGUFWriter, tensors: Sequence[Tensor]) -> None:
    """Write one tensor after the other, so that one at a time is in memory."""
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.byte_shape,
            np.dtype(np.uint8),
            math.prod(tensor.byte_shape),
            raw_dtype=tensor.type,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(gguf_tensors.encoded(tensor).view(np.uint8))
    writer.close()


def _quantizer(kind: str) -> str:
    program = shutil.which(QUANTIZER)
    if program is None:
        raise MachineError(
            f"{kind} is written by llama.cpp's {QUANTIZER}, which is not on PATH.",
            where="--gguf-type",
            hint=f"Install llama.cpp, or pass one of "
            f"{', '.join(gguf_fields.FILE_TYPES)}.",
        )
    return program


def _run(command: Sequence[str], target: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.is_file():
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MachineError(
            f"{QUANTIZER} failed ({done.returncode}): {' '.join(last)}",
            where="--gguf-type",
        )
