"""The last block at chosen positions only: nothing above it reads the others.

Attention mixes positions and needs keys and values of all of them. What a block does to
its output (projection, norms, gate, residual sums) is done position by position, so it is
done where the head will look and nowhere else. The block's own ``__call__`` stays in
charge; a stand-in takes the place of its attention.
Shapes: B rows, T positions, N chosen positions, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.models.seam import Answer, StandIn

ATTENTION, PROJECTION = "self_attn", "o_proj"
"""What model code calls the part that mixes positions, and its last layer."""
LARGEST_SHARE = 0.75
"""Of positions; above it choosing them costs what it saves."""


def pays(rows_N: mx.array, tokens_BT: mx.array) -> bool:
    """Whether so few positions are chosen that the last block is worth trimming."""
    return rows_N.size <= LARGEST_SHARE * tokens_BT.size


def trimming(block: nn.Module, rows_N: mx.array) -> Answer:
    """A block that answers (1, N, D), for the flat positions ``b * T + t`` alone."""

    def answer(hidden_BTD: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        asked: list[tuple[Any, Any]] = []

        def ask(*given: Any, **named: Any) -> mx.array:
            asked.append((given, named))
            return hidden_BTD  # what is made of it is never computed

        with _in_place(block, ATTENTION, ask):
            block(hidden_BTD, *args, **kwargs)
        ((given, named),) = asked
        attention = block[ATTENTION]

        def attend(*_: Any, **__: Any) -> mx.array:
            return _attended(attention, rows_N, given, named)

        with _in_place(block, ATTENTION, attend):
            return block(_chosen(hidden_BTD, rows_N), *args, **kwargs)

    return answer


def _attended(attention: Any, rows_N: mx.array, given: Any, named: Any) -> mx.array:
    """The output of attention (1, N, D); projected only where it is asked for."""
    if PROJECTION not in attention:
        return _chosen(attention(*given, **named), rows_N)
    project = attention[PROJECTION]

    def projected(mixed_BTD: mx.array) -> mx.array:
        return project(_chosen(mixed_BTD, rows_N))

    with _in_place(attention, PROJECTION, projected):
        return attention(*given, **named)


def _chosen(states_BTD: mx.array, rows_N: mx.array) -> mx.array:
    return states_BTD.reshape(-1, states_BTD.shape[-1])[rows_N][None]


@contextlib.contextmanager
def _in_place(parent: Any, name: str, answer: Answer) -> Generator[None]:
    module = parent[name]
    # Through the dict, so that the place among the parameters stays.
    parent[name] = StandIn(module, answer)
    try:
        yield
    finally:
        parent[name] = module
