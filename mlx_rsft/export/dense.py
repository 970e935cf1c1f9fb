"""Models that see a whole row at once, and mlx's own as a reader."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Product
from mlx_rsft.export.reading import LIKELIEST, Limit, Row
from mlx_rsft.models import fitted

EXACT = 1e-3
"""The same numbers, multiplied in another order: float32 through all blocks, nats."""
HALF = 0.1
"""The same in 16 bits: activations that are rounded to the other side, nats."""


class Dense:
    """A model of mlx as it is read."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def likely(self, row: Row) -> Iterator[tuple[int, Mapping[int, float]]]:
        yield from likeliest(row, log_probs(self._model, row))


def log_probs(model: nn.Module, row: Row) -> NDArray[np.float32]:
    """Log-probabilities of every token at each place of a row, ``[places, V]``, nats."""
    logits = model(mx.array([row.tokens]))[0, row.start - 1 : -1].astype(mx.float32)
    return normalised(np.array(logits))


def normalised(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of logits ``[places, V]``, nats.

    The sum is made in float64: mlx's own over the 262,144 tokens of Gemma was off by
    5.6e-4 on the CPU backend, four times what model and reader are apart.
    """
    less = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(less).sum(axis=-1, keepdims=True, dtype=np.float64)
    return (less - np.log(total)).astype(np.float32)


def likeliest(
    row: Row, found: NDArray[np.float32]
) -> Iterator[tuple[int, Mapping[int, float]]]:
    """What a reader answers who knows all log-probabilities, ``[places, V]``."""
    for place, values in enumerate(found, row.start):
        most = np.argpartition(values, -LIKELIEST)[-LIKELIEST:]
        yield place, {int(token): float(values[token]) for token in most}


@contextmanager
def bare(live: Live) -> Generator[nn.Module]:
    """The base model without its adapter; whatever is put on it comes off again."""
    held = fitted.places(live.model)
    for place in held:
        place.parent[place.key] = place.bare
    try:
        yield live.model
    finally:
        fitted.remove(live.model)
        for place in held:
            place.parent[place.key] = place.module


def is_exact(live: Live) -> bool:
    """Whether the live model computes in float32."""
    return live.model(mx.array([[0]])).dtype == mx.float32


def rounding(live: Live, product: Product) -> Limit:
    """What the base model's own precision explains."""
    del product
    return Limit(EXACT if is_exact(live) else HALF)


def always(live: Live, product: Product) -> str:
    """Of a reader that is part of this package."""
    del live, product
    return ""
