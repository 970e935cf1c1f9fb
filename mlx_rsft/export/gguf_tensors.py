"""The tensors of a merged model as llama.cpp's files hold them.

Names come from the ``gguf`` package. Two things differ in the numbers: query and key
rows of the llama family lie in another order, and Gemma's norms are stored with their 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.export import merging
from mlx_rsft.export.live import Floats, Live, floats
from mlx_rsft.models.families import FAMILIES, Family

BLOCK = 32
"""Numbers that share a scale in Q8_0 and Q4_0."""
ONE_MORE = ("gemma", "gemma2", "gemma3_text")
HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
COARSE, FINE = "q4_0", "q8_0"
OUTER = ("token_embd.weight", "output.weight")
LARGEST_HALF = 65504.0


class Tensor(NamedTuple):
    """A tensor to be written: float32 numbers that are not computed yet, and a type."""

    name: str
    values: mx.array
    kind: str

    @property
    def type(self) -> Any:
        """The ``gguf`` package's type."""
        import gguf

        return gguf.GGMLQuantizationType[self.kind.upper()]

    @property
    def byte_shape(self) -> tuple[int, ...]:
        from gguf.quants import quant_shape_to_byte_shape

        return tuple(quant_shape_to_byte_shape(self.values.shape, self.type))


def tensors(live: Live, family: Family, kind: str) -> Iterator[Tensor]:
    """Every tensor under its name in llama.cpp, lazily.

    Args:
        live: The adapter on its model.
        family: The model's.
        kind: Type of the matrices: ``f32``, ``f16``, ``bf16``, ``q8_0`` or ``q4_0``.

    Raises:
        ConfigError: With every parameter that llama.cpp has no name for.
    """
    weights = merging.weights(live)
    names = _names(live, family, weights)
    for theirs, name in names.items():
        values = weights[theirs].astype(mx.float32)
        if live.model_type in ONE_MORE and name.endswith("norm.weight"):
            values = values + 1
        if family.rotated:
            values = rotated(values, _heads(live, theirs))
        yield Tensor(name, values, _kind(name, values.shape, kind))


def _names(live: Live, family: Family, weights: Mapping[str, Any]) -> dict[str, str]:
    import gguf

    arch = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == family.gguf)
    known = gguf.get_tensor_name_map(arch, len(getattr(live.model, "layers", ())))
    found: dict[str, str] = {}
    problems: list[RsftError] = []
    for name in weights:
        theirs = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None or theirs in found.values():
            problems.append(
                ConfigError(
                    f"{name} has no name in llama.cpp's {family.gguf} model.",
                    where="--to gguf-merged",
                    hint="Pass --to fused.",
                )
            )
        else:
            found[name] = theirs
    raise_together(problems)
    return found


def _heads(live: Live, name: str) -> int:
    key = HEADS.get(name.split(".")[-2])
    args: Any = live.model.args
    return int(getattr(args, key)) if key else 0


def rotated(values: mx.array, heads: int) -> mx.array:
    """Query or key rows as llama.cpp rotates them: neighbours, not halves of a head."""
    if not heads:
        return values
    pairs = values.reshape(heads, 2, len(values) // heads // 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _kind(name: str, shape: tuple[int, ...], kind: str) -> str:
    """The type of one tensor: vectors whole, odd widths in 16 bits, the head finer.

    llama.cpp keeps embeddings and head in 6 bits where the rest has 4; the ``gguf``
    package cannot write those, so they get 8 here.
    """
    if len(shape) < 2 or kind == "f32":
        return "f32"
    if kind not in (COARSE, FINE):
        return kind
    if shape[-1] % BLOCK:
        return "f16"
    return FINE if name in OUTER else kind


def encoded(tensor: Tensor) -> NDArray[Any]:
    """The bytes of a tensor, as an array.

    Raises:
        ConfigError: If 16 bits do not hold its numbers.
    """
    from gguf.quants import quantize

    numbers: Floats = floats(tensor.values)
    largest = float(np.abs(numbers).max(initial=0))
    if not np.isfinite(largest) or (tensor.kind == "f16" and largest > LARGEST_HALF):
        raise ConfigError(
            f"{tensor.name} holds {largest:.3g}, which {tensor.kind} does not.",
            where="--gguf-type",
            hint="Pass --gguf-type bf16.",
        )
    return quantize(numbers, tensor.type)


def as_read(live: Live, kind: str) -> merging.Weights:
    """The merged weights, under mlx's names, as they come back from a file."""
    from gguf.quants import dequantize

    weights = merging.weights(live)
    found: merging.Weights = {}
    for theirs, name in _names(live, family_of(live), weights).items():
        values = weights[theirs].astype(mx.float32)
        tensor = Tensor(name, values, _kind(name, values.shape, kind))
        found[theirs] = mx.array(dequantize(encoded(tensor), tensor.type))
    return found


def family_of(live: Live) -> Family:
    """How llama.cpp calls this model's parts.

    Raises:
        ConfigError: If it is not known here.
    """
    family = FAMILIES.get(live.model_type)
    if family is None or not family.gguf:
        known = ", ".join(name for name, one in FAMILIES.items() if one.gguf)
        raise ConfigError(
            f"How llama.cpp holds a {live.model_type} model is not known here.",
            where="--to gguf-merged",
            hint=f"Known: {known}. Pass --to fused, and convert that folder with "
            "llama.cpp's convert_hf_to_gguf.py.",
        )
    return family
