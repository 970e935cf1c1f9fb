"""A LoRA adapter for llama.cpp and Ollama, as one GGUF file.

llama.cpp multiplies by alpha / rank, the rank being that of each B factor, and takes an
alpha of 0 for none at all. In some architectures its base files hold the query and key
rows in another order; there the rows of those B factors are moved alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.export import svd
from mlx_rsft.export.live import Factors, Floats, Live, factors
from mlx_rsft.export.mlx_adapter import refuse_full
from mlx_rsft.export.peft import MERGED, family_of
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import families
from mlx_rsft.models.families import Family

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

TYPES = ("f32", "f16", "bf16", "q8_0")
BLOCK = 32
"""Numbers that a block of q8_0 holds; a row is whole blocks."""
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write ``adapter-TYPE.gguf``.

    Raises:
        ConfigError: With every module that llama.cpp has no like of, or for a DoRA that
            is not to become a LoRA.
    """
    family = refuse(live, choices)
    found = list(factors(live.model))
    notes: list[str] = []
    if live.is_dora:
        found, error = svd.as_lora(found, choices.dora_as_lora)
        notes.append(f"DoRA as a LoRA of rank {found[0].rank}: {error}")
    found = uniform(found)
    path = folder / f"adapter-{choices.gguf_type}.gguf"
    tensors: dict[str, Floats] = {}
    for one in found:
        name = families.gguf_tensor(family, one.path)
        tensors[f"{name}.weight.lora_a"] = one.a.T
        rows = moved(one.b.T, live.model, family, str(name))
        tensors[f"{name}.weight.lora_b"] = rows
    alpha = found[0].scale * found[0].rank
    plain = _write(path, family.gguf, alpha, tensors, choices.gguf_type)
    if plain:
        notes.append(f"{plain} factors are no whole blocks of {BLOCK}; they are f16")
    exact = choices.gguf_type == "f32" and not live.is_dora
    meant = () if exact else tuple(_rounded(one, choices.gguf_type) for one in found)
    return Product("gguf", path, tuple(notes), meant)


def uniform(found: Sequence[Factors]) -> list[Factors]:
    """The same with one rank and one scale above 0, so that one alpha is for all."""
    rank = max(one.rank for one in found)
    scales = {one.scale for one in found}
    scale = scales.pop() if len(scales) == 1 and min(scales) > 0 else 1.0
    return [
        replace(
            one,
            a=np.pad(one.a, [(0, 0), (0, rank - one.rank)]),
            b=np.pad(one.b * (one.scale / scale), [(0, rank - one.rank), (0, 0)]),
            scale=scale,
        )
        for one in found
    ]


def _rounded(one: Factors, kind: str) -> Factors:
    """The factors as the file holds them."""
    return replace(one, a=_held(one.a.T, kind).T, b=_held(one.b.T, kind).T)


def _held(values: Floats, kind: str) -> Floats:
    import gguf

    stored = _stored_type(values, kind)
    return gguf.dequantize(gguf.quantize(np.ascontiguousarray(values), stored), stored)


def _stored_type(values: Floats, kind: str) -> GGMLQuantizationType:
    """A row that is no whole blocks of 8 bits is kept in 16."""
    import gguf

    short = kind == "q8_0" and values.shape[-1] % BLOCK
    return gguf.GGMLQuantizationType["F16" if short else kind.upper()]


def refuse(live: Live, choices: Choices) -> Family:
    """The names in llama.cpp.

    Raises:
        ConfigError: If llama.cpp has no like of the adapter.
    """
    refuse_full(live, "gguf")
    if choices.gguf_type not in TYPES:
        raise ConfigError(
            f"{choices.gguf_type!r} is no type of a GGUF adapter.",
            where="--gguf-type",
            hint=f"Known: {', '.join(TYPES)}.",
        )
    family = _family(live)
    _check(list(factors(live.model)), family)
    if live.is_dora and choices.dora_as_lora < 1:
        raise ConfigError(
            "llama.cpp has no DoRA.",
            where="--to gguf",
            hint="Pass --to gguf-merged, which writes the whole model; or "
            "--dora-as-lora RANK, which writes the nearest LoRA and says how near.",
        )
    return family


def _family(live: Live) -> Family:
    family = family_of(live, "llama.cpp")
    if not family.gguf:
        raise ConfigError(
            f"What llama.cpp calls the modules of a {live.model_type} model is not known.",
            where="--to gguf",
            hint=MERGED,
        )
    return family


def _check(found: Sequence[Factors], family: Family) -> None:
    """Refuse by name what has no tensor; an embedding is read by row, not multiplied."""
    problems: list[RsftError] = [
        ConfigError(
            f"{one.path} is not adapted by llama.cpp as it is here.",
            where="--to gguf",
            hint="Pass --to gguf-merged, which writes the whole model.",
        )
        for one in found
        if one.is_experts or families.gguf_tensor(family, one.path) is None
    ]
    raise_together(problems)


def moved(b: Floats, model: Any, family: Family, name: str) -> Floats:
    """The rows of a B factor ``[out, r]`` in the order of llama.cpp's base files.

    Halves of a head that rotate together stand side by side there.
    """
    heads = HEADS.get(name.rpartition(".")[2])
    if not family.rotated or heads is None:
        return b
    number = int(getattr(model.args, heads))
    halves = b.reshape(number, 2, len(b) // number // 2, b.shape[1])
    return halves.swapaxes(1, 2).reshape(b.shape)


def _write(
    path: Path, architecture: str, alpha: float, tensors: dict[str, Floats], kind: str
) -> int:
    """Write the file; returns how many tensors are f16 for want of whole blocks."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    plain = 0
    for name, values in tensors.items():
        stored = _stored_type(values, kind)
        plain += stored.name != kind.upper()
        packed = gguf.quantize(np.ascontiguousarray(values), stored)
        writer.add_tensor(name, packed, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return plain
