"""The architectures whose GGUF files can be read; a new one is one more member."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mlx_rsft.models import (
    gguf_decoder,
    gguf_gemma,
    gguf_llama,
    gguf_phi,
    gguf_qwen,
)
from mlx_rsft.models.gguf_blocks import Bytes
from mlx_rsft.models.gguf_file import ELSEWHERE, GgufFile

Config = dict[str, Any]


class Architecture(NamedTuple):
    """How one architecture of llama.cpp reads as a Hugging Face model."""

    config: Callable[[GgufFile], Config]
    tensors: Mapping[str, tuple[str, str]]  # GGUF name: (Hugging Face name, shape)
    consumed: frozenset[str] = frozenset()  # tensors that ``config`` has read
    rows: Callable[[str, Bytes, Config], Bytes] = gguf_decoder.as_stored
    norm_offset: float = 0.0  # what a norm has more than in Hugging Face models
    half: str = "float16"  # the 16-bit type that its activations fit
    # by the field of ``config`` that says they are there; those missing are zeros
    biases: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType({})

    def biases_of(self, config: Config) -> dict[str, tuple[str, str]]:
        """The biases of a model, those that its file lacks too."""
        chosen = [tensors for flag, tensors in self.biases.items() if config[flag]]
        return {name: target for tensors in chosen for name, target in tensors.items()}


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        gguf_llama.config,
        gguf_llama.TENSORS,
        frozenset({gguf_llama.ROPE_FACTORS}),
        gguf_llama.rows,
        biases=gguf_llama.BIASES,
    ),
    "qwen2": Architecture(gguf_qwen.config_2, gguf_qwen.TENSORS_2, half="bfloat16"),
    "qwen3": Architecture(gguf_qwen.config_3, gguf_qwen.TENSORS_3, half="bfloat16"),
    "gemma2": Architecture(
        gguf_gemma.config_2,
        gguf_gemma.TENSORS_2,
        norm_offset=gguf_gemma.NORM_OFFSET,
        half=gguf_gemma.HALF,
    ),
    "gemma3": Architecture(
        gguf_gemma.config_3,
        gguf_gemma.TENSORS_3,
        norm_offset=gguf_gemma.NORM_OFFSET,
        half=gguf_gemma.HALF,
    ),
    "phi3": Architecture(gguf_phi.config, gguf_phi.TENSORS, half="bfloat16"),
}


def architecture(file: GgufFile) -> Architecture:
    """The architecture of a file.

    Raises:
        ModelError: If it is none that can be read.
    """
    name = file.need("general.architecture", str)
    if name not in ARCHITECTURES:
        file.refuse(
            f"GGUF files of architecture {name!r} cannot be converted; "
            f"supported: {', '.join(ARCHITECTURES)}.",
            hint=ELSEWHERE,
        )
    return ARCHITECTURES[name]
