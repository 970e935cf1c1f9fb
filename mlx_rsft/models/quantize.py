"""Weights in few bits while they are trained around (QLoRA).

Only linear layers inside the blocks are rounded; embeddings and head keep their type.
In SmolLM2-135M 4 bits in the blocks cost 0.05 to 0.80 nats per token of two texts, and
with the embeddings, which are its head as well, 0.14 to 1.00; 8 bits cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.errors import ConfigError
from mlx_rsft.models import targets


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to round: bits per weight, weights per scale, and mlx's name for it."""

    bits: int
    group_size: int
    mode: str


KINDS = {
    "4": Kind(4, 64, "affine"),
    "8": Kind(8, 64, "affine"),
    "mxfp4": Kind(4, 32, "mxfp4"),
}
SMALL = 1_000_000_000
"""Parameters below which 4 bits are announced as a risk."""


def layers(model: nn.Module) -> dict[str, int]:
    """How many layers hold quantised weights, by kind: ``4-bit affine, group 64``."""
    kinds = [
        f"{module.bits}-bit {module.mode}, group {module.group_size}"
        for _, module in model.named_modules()
        if "scales" in module
    ]
    return dict(Counter(kinds))


def quantize(model: Any, name: str) -> list[str]:
    """Round the weights of the blocks' linear layers, in the type they have now.

    Returns:
        What is to be known about it, in plain sentences.

    Raises:
        ConfigError: If no layer's width can be divided into groups.
    """
    kind = KINDS[name]
    leaves: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # pyright: ignore
    size = sum(value.size for _, value in leaves)
    skipped: list[str] = []
    nn.quantize(
        model,
        group_size=kind.group_size,
        bits=kind.bits,
        mode=kind.mode,
        class_predicate=_chooser(model, kind, skipped),
    )
    done = sum(layers(model).values())
    if not done:
        raise ConfigError(
            f"No layer is a multiple of {kind.group_size} wide, so none can be "
            "quantised.",
            where="model.quantize",
            hint="Leave --quantize out for this model.",
        )
    return _notes(kind, size, skipped, done)


def _chooser(
    model: Any, kind: Kind, skipped: list[str]
) -> Callable[[str, nn.Module], bool | dict[str, Any]]:
    """Which layers to round; a model's own wishes about its routers are heeded."""
    inside = tuple(f"{path}." for path in targets.block_paths(model))
    own: Any = getattr(model, "quant_predicate", None)

    def choose(path: str, module: Any) -> bool | dict[str, Any]:
        if not path.startswith(inside) or not hasattr(module, "to_quantized"):
            return False
        if module.weight.shape[-1] % kind.group_size:
            skipped.append(path)
            return False
        return own(path, module) if own else True

    return choose


def _notes(kind: Kind, size: int, skipped: Sequence[str], done: int) -> list[str]:
    notes: list[str] = []
    if skipped:
        notes.append(
            f"{len(skipped)} layers are not a multiple of {kind.group_size} wide and "
            f"keep their weights; {done} are quantised. The first is {skipped[0]}."
        )
    if kind.bits < 8 and size < SMALL:
        notes.append(
            f"A model of {size / 1e6:.0f} million parameters can lose much at 4 bits; "
            "compare eval with and without --quantize, or take 8."
        )
    return notes
