"""Chunks of rows, recomputed in the backward pass; for a head that is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import mlx.core as mx

from mlx_rsft.loss import kernel
from mlx_rsft.loss.dense import dense
from mlx_rsft.loss.kernel import CHUNK_BYTES, chunks
from mlx_rsft.loss.sums import LossSums, Recipe
from mlx_rsft.objectives.tokens import Known


def checkpointed(
    head: Callable[[Any, mx.array], mx.array],
    parameters: Any,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> LossSums:
    """Chunks of rows, recomputed in the backward pass; for a head that is trained.

    Args:
        head: From the head's parameters and hidden states to logits.
        parameters: Its trainable parameters, handed over explicitly: what a
            checkpointed function merely closes over gets no gradient.
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
        return kernel.no_tokens(hidden_ND)

    def piece(held: Any, hidden: mx.array, *, start: int, end: int) -> LossSums:
        def of_hidden(rows: mx.array) -> mx.array:
            return head(held, rows)

        facts = known.between(start, end)
        return dense(of_hidden, hidden, targets_N[start:end], recipe, facts)

    def bare(rows: mx.array) -> mx.array:
        return head(parameters, rows)

    parts: list[LossSums] = []
    for start, end in chunks(bare, hidden_ND, chunk_bytes):
        run = mx.checkpoint(partial(piece, start=start, end=end))
        parts.append(LossSums._make(run(parameters, hidden_ND[start:end])))
    return reduce(LossSums.__add__, parts)
