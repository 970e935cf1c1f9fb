"""Whether a frozen trunk is worth keeping: operations saved, bytes needed.

Operations are multiplications and additions of matrix products, which is where the time
goes. Weights of a mixture of experts are counted as if all were used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.models.split import SplitModel

LEAST_GAIN = 1.1
"""Below this the bookkeeping is not worth its bytes."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What of a model its cost hangs on.

    Attributes:
        below: Weights of the frozen blocks.
        above: Weights of the blocks from the first trained one on.
        head: Weights of the head: width times vocabulary.
        token_bytes: The states of one token.
    """

    depth: int
    num_blocks: int
    width: int
    below: int
    above: int
    head: int
    token_bytes: int


@dataclass(frozen=True, slots=True)
class Workload:
    """What a model is asked for.

    Attributes:
        tokens: Of all different rows, padding left out.
        supervised: Those of them that reach the head.
        length: Of a typical row, tokens.
        training: How often every row is trained on: epochs, times arms of a comparison.
        scoring: How often every row is scored without a gradient.
    """

    tokens: int
    supervised: int
    length: float
    training: float
    scoring: float = 0.0


@dataclass(frozen=True, slots=True)
class Worth:
    """What a trunk cache brings; as text, a sentence for the user."""

    depth: int
    num_blocks: int
    plain_flops: float
    cached_flops: float
    num_bytes: int

    @property
    def gain(self) -> float:
        return self.plain_flops / self.cached_flops

    @property
    def pays(self) -> bool:
        return self.gain >= LEAST_GAIN

    def __str__(self) -> str:
        return (
            f"{self.depth} of {self.num_blocks} blocks computed once, "
            f"{self.num_bytes / 1e6:,.0f} MB, about {self.gain:.1f}x fewer operations"
        )


def worth(size: ModelSize, work: Workload) -> Worth:
    """Operations of a whole workload with and without the cache.

    Blocks above cost a forward pass and, in training, the gradient of their input (their
    weights are frozen, the adapter's are few); the head likewise, for supervised tokens.
    """
    passes = work.training + work.scoring
    below = _forward(size.below, size.depth, size, work)
    above = _forward(size.above, size.num_blocks - size.depth, size, work)
    head = 2.0 * size.head * work.supervised
    upper = (passes + work.training) * (above + head)
    return Worth(
        size.depth,
        size.num_blocks,
        plain_flops=passes * below + upper,
        cached_flops=below + upper,
        num_bytes=work.tokens * size.token_bytes,
    )


def _forward(weights: int, blocks: int, size: ModelSize, work: Workload) -> float:
    """Each weight once per token; scores and values of attention over the row."""
    return work.tokens * (2.0 * weights + 4.0 * blocks * work.length * size.width)


def model_size(split: SplitModel, depth: int) -> ModelSize:
    """The sizes of a model; computes nothing, shapes are known without it."""
    blocks = split.backbone["layers"]
    states = split.trunk(mx.zeros((1, 1), mx.int32), depth).values_BTD
    width = states.shape[-1]
    logits = split.head(mx.zeros((1, width), states.dtype))
    return ModelSize(
        depth=depth,
        num_blocks=len(blocks),
        width=width,
        below=_weights(blocks[:depth]),
        above=_weights(blocks[depth:]),
        head=width * logits.shape[-1],
        token_bytes=width * states.dtype.size,
    )


def _weights(blocks: Iterable[nn.Module]) -> int:
    return sum(
        _own_weights(module)
        for block in blocks
        for module in block.modules()
        if isinstance(module, nn.Module)
    )


def _own_weights(module: Any) -> int:
    """Weights that multiply something: matrices, counted as if not quantised."""
    matrices = [
        value
        for value in module.values()
        if isinstance(value, mx.array) and value.ndim > 1
    ]
    if "scales" in module and hasattr(module, "bits"):
        return module["weight"].size * 32 // module.bits
    return sum(matrix.size for matrix in matrices)
