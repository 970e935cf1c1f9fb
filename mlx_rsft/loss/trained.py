"""Chunks of rows, each with its gradient at once; for a head that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from mlx_rsft.loss import kernel
from mlx_rsft.loss.dense import differentiable
from mlx_rsft.loss.kernel import CHUNK_BYTES, chunks
from mlx_rsft.loss.sums import LossSums, Recipe, Slopes
from mlx_rsft.objectives.tokens import Known

Parameters = Mapping[str, mx.array]


def trained(
    head: Callable[[Any, mx.array], mx.array],
    parameters: Parameters,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Slopes:
    """Chunks of rows, each with its gradient at once; for a head that is trained.

    Args:
        head: From the head's parameters and hidden states to logits.
        parameters: Its trainable parameters.
        hidden_ND: Hidden states of the supervised positions.
        targets_N: Their demonstrated tokens.
        recipe: The objective; an anchor to the base model is not possible here.
        known: What is known of the tokens beforehand.
        chunk_bytes: Budget of one chunk's float32 logits.

    Raises:
        ValueError: If the recipe needs the base model, whose head is another one.
    """
    known = known or Known()
    if recipe.needs_reference:
        raise ValueError("a trained head has no base model's logits to be anchored to")
    if targets_N.size == 0:
        still = {name: mx.zeros_like(value) for name, value in parameters.items()}
        return Slopes(kernel.no_tokens(known), mx.zeros_like(hidden_ND), still)

    def piece(held: Parameters, rows: mx.array, *, start: int, end: int) -> LossSums:
        facts = known.between(start, end)
        some_N = targets_N[start:end]
        return differentiable(partial(head, held), rows, some_N, recipe, facts)

    parts: list[LossSums] = []
    slopes: list[mx.array] = []
    total: Any = None
    for start, end in chunks(partial(head, parameters), hidden_ND, chunk_bytes):
        run = mx.value_and_grad(partial(piece, start=start, end=end), argnums=(0, 1))
        sums, (found, slope_ND) = run(parameters, hidden_ND[start:end])
        total = found if total is None else tree_map(mx.add, total, found)
        parts.append(LossSums._make(sums))
        slopes.append(slope_ND)
        mx.eval(slope_ND, total, *sums)
    return Slopes(reduce(LossSums.__add__, parts), mx.concatenate(slopes), total)
