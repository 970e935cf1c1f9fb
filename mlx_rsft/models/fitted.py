"""Where an adapter sits in a model, and the model without it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.errors import ConfigError

FACTORS = ("lora_a", "lora_b", "m")
"""Parameters of an adapter; ``m`` is DoRA's magnitude."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an adapter sits: in ``parent[key]``, around the module ``bare``."""

    path: str
    parent: Any
    key: Any
    module: nn.Module
    bare: nn.Module

    def factors(self) -> set[str]:
        """The names of its parameters in the whole model."""
        return {f"{self.path}.{leaf}" for leaf in FACTORS if leaf in self.module}


def places(model: nn.Module) -> list[Place]:
    """Every adapter layer of a model."""
    found: list[Place] = []
    for path, module in model.named_modules():
        if "lora_a" not in module or "lora_b" not in module:
            continue
        above, _, last = path.rpartition(".")
        parent: Any = model
        for step in above.split(".") if above else []:
            parent = parent[int(step)] if isinstance(parent, list) else parent[step]
        key = int(last) if isinstance(parent, list) else last
        bare = module["embedding"] if "embedding" in module else module["linear"]
        found.append(Place(path, parent, key, module, bare))
    return found


def weight(bare: nn.Module) -> mx.array:
    """The weight of a module, out of its blocks if it is quantised; not evaluated."""
    held: mx.array = bare["weight"]
    if "scales" not in bare:
        return held
    kept = {key: getattr(bare, key) for key in ("group_size", "bits", "mode")}
    return mx.dequantize(held, bare["scales"], bare.get("biases"), **kept)


class OffSwitch:
    """Takes an adapter out of its model and puts it back, leaving exactly the base.

    Args:
        model: A model of which only an adapter is trained.

    Raises:
        ConfigError: If anything else is trained, so that the base is not at hand.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = places(model)
        ours = [place.factors() for place in self._places]
        trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
        if trained - set[str]().union(*ours):
            raise ConfigError(
                "The objective compares with the base model, which is no longer at "
                "hand when its own weights are trained.",
                where="objective",
                hint="Train a LoRA adapter, or leave the anchor and base-model "
                "objectives.",
            )

    @contextmanager
    def off(self) -> Generator[None]:
        """The base model, for as long as the context lasts."""
        for place in self._places:
            place.parent[place.key] = place.bare
        try:
            yield
        finally:
            for place in self._places:
                place.parent[place.key] = place.module


def remove(model: nn.Module) -> None:
    """Take the adapter off for good; the model is the bare one again."""
    for place in places(model):
        place.parent[place.key] = place.bare
