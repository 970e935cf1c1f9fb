"""An adapter as it works: on its model, and as plain numbers to be written elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_rsft.models import demo, fitted, source
from mlx_rsft.models.fitted import Place
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.stored import Stored

Floats = NDArray[np.float32]
HUB_NAMES = {
    "demo": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "demo-gemma": "google/gemma-3-270m",
}
"""Where the built-in models come from."""


ROUNDS_EMBEDDING = ("gemma3_text",)
"""mlx-lm rounds the factor of their embeddings to bfloat16: 25.25 for 25.298. Readers
that do not are given the rounded one, so that adapters are compared like with like."""


@dataclass(frozen=True, slots=True)
class Live:
    """A model with its adapter on it, ready to be asked.

    Attributes:
        loaded: The base model, with the adapter's layers put on, in eval mode.
        adapter_config: mlx-lm's ``adapter_config.json``: ``fine_tune_type``,
            ``num_layers`` and, unless it is ``full``, ``lora_parameters``.
        base_name: What exported files call the base model: its Hub id, or a bare name.
    """

    loaded: LoadedModel
    adapter_config: Mapping[str, Any]
    base_name: str

    @property
    def model(self) -> nn.Module:
        """mlx-lm's model with the adapter on it."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's tokenizer wrapper."""
        return self.loaded.tokenizer

    @property
    def path(self) -> Path:
        """The folder of the base model."""
        return self.loaded.path

    @property
    def source(self) -> str:
        """What the user called the base model."""
        return self.loaded.source

    @property
    def is_full(self) -> bool:
        """Whether the weights themselves were trained, so that there are no factors."""
        return self.adapter_config["fine_tune_type"] == "full"

    @property
    def is_dora(self) -> bool:
        """Whether it has magnitudes."""
        return self.adapter_config["fine_tune_type"] == "dora"

    @property
    def model_type(self) -> str:
        """The family of the base model, as its ``config.json`` names it."""
        return str(getattr(self.model, "model_type", ""))

    @property
    def gguf(self) -> Path | None:
        """The ``.gguf`` file that the base model came from, if it did."""
        if self.source in demo.MODELS:
            return demo.gguf_file(self.source)
        named = Path(self.source).expanduser()
        return named if named.suffix == ".gguf" else None


@dataclass(frozen=True, slots=True)
class Factors:
    """The adapter at one place: ``y = W x + scale * B' A' x``, in float32.

    Attributes:
        place: Where it sits; ``place.bare`` is the module without it.
        a: Of a linear module ``[in, r]``, of an embedding ``[vocabulary, r]``, of
            experts ``[experts, r, in]``.
        b: ``[r, out]``; of experts ``[experts, out, r]``.
        scale: The multiplier itself.
        magnitude: DoRA's, ``[out]``; None in LoRA.
    """

    place: Place
    a: Floats
    b: Floats
    scale: float
    magnitude: Floats | None

    @property
    def path(self) -> str:
        """The module's name in the model, such as ``model.layers.0.mlp.up_proj``."""
        return self.place.path

    @property
    def rank(self) -> int:
        return self.a.shape[-2] if self.is_experts else self.a.shape[-1]

    @property
    def is_embedding(self) -> bool:
        return isinstance(self.place.bare, nn.Embedding | nn.QuantizedEmbedding)

    @property
    def is_experts(self) -> bool:
        """Whether it holds one pair of factors per expert, in another orientation."""
        return self.a.ndim == 3


def factors(model: nn.Module) -> Iterator[Factors]:
    """The adapter of a model, place by place."""
    for place in fitted.places(model):
        module: Any = place.module
        yield Factors(
            place,
            floats(module["lora_a"]),
            floats(module["lora_b"]),
            float(module.scale),
            floats(module["m"]) if "m" in module else None,
        )


def as_stored(found: Sequence[Factors]) -> Stored:
    """LoRA factors of one rank and scale as mlx-lm stores them."""
    tensors = {f"{one.path}.lora_a": mx.array(one.a) for one in found}
    tensors |= {f"{one.path}.lora_b": mx.array(one.b) for one in found}
    parameters = {
        "rank": found[0].rank,
        "scale": found[0].scale,
        "dropout": 0.0,
        "keys": [one.path for one in found],
    }
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters}
    return Stored(config, tensors)


def floats(array: mx.array) -> Floats:
    """An array of mlx as one of numpy, in float32."""
    return np.array(array.astype(mx.float32))


def base_name(named: str, given: str = "") -> str:
    """What exported files call the base model; never a path on this disk.

    Args:
        named: What the user called it.
        given: What it is to be called, if the user said so.
    """
    if given or named in HUB_NAMES:
        return given or HUB_NAMES[named]
    here = Path(named).expanduser()
    if not here.exists() and source.HUB_ID.fullmatch(named):
        return named
    name = here.resolve().name
    return name.removesuffix(".gguf")
