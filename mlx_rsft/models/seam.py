"""The seam between the frozen blocks of a model and those above: run one side alone.

The model's own ``__call__`` stays in charge. For one call its list of blocks holds
stand-ins that answer in place of a block and show the block's attributes, which models
read to pick a mask. mlx is lazy, so what a stand-in bypasses is never computed.
Shapes: B rows, T positions, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft import machine
from mlx_rsft.errors import ModelError
from mlx_rsft.lanes import Job

Answer = Callable[..., Any]
_noted: list[mx.array] | None = None
"""What blocks have made since ``by_block`` began to note it; None: nothing is noted."""


class TrunkStates(NamedTuple):
    """What the frozen blocks made of a batch; a tuple, so mlx looks inside.

    Attributes:
        depth: How many blocks are below, at least 1.
        values_BTD: The output of block ``depth - 1``; anything finite at padding.
    """

    depth: int
    values_BTD: mx.array


class StandIn:
    """Answers in a module's place; for everything else it is that module."""

    def __init__(self, module: nn.Module, answer: Answer) -> None:
        self._module = module
        self._answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def run_below(backbone: nn.Module, tokens_BT: mx.array, depth: int) -> mx.array:
    """The output (B, T, D) of block ``depth - 1``; blocks above are not computed.

    Raises:
        ModelError: If the model calls its blocks in a way that this cannot follow.
    """
    layers: list[Any] = backbone["layers"]
    assert 1 <= depth < len(layers)
    kept: list[Any] = []

    def tap(*args: Any, **kwargs: Any) -> Any:
        kept.append(layers[depth - 1](*args, **kwargs))
        return kept[-1]

    rest = dict.fromkeys(range(depth, len(layers)), _passed)
    with standing_in(backbone, {depth - 1: tap, **rest}):
        backbone(tokens_BT)
    if len(kept) != 1 or not isinstance(kept[0], mx.array):
        raise ModelError("a block is not one call that returns hidden states alone")
    return kept[0]


def above(trunk: TrunkStates) -> dict[int, Answer]:
    """What the blocks answer when the frozen ones have already been run."""

    def given(*_: Any, **__: Any) -> mx.array:
        return trunk.values_BTD

    below = dict.fromkeys(range(trunk.depth - 1), _passed)
    return {**below, trunk.depth - 1: given}


def _passed(hidden: Any, *_: Any, **__: Any) -> Any:
    return hidden


@contextlib.contextmanager
def standing_in(backbone: nn.Module, answers: Mapping[int, Answer]) -> Generator[None]:
    """Let others answer in the place of some blocks, for the calls in a block."""
    layers: list[Any] = backbone["layers"]
    # Through the dict, so that the place among the parameters stays.
    backbone["layers"] = [
        StandIn(layer, _noting(answers.get(place, layer)))
        if place in answers or _noted is not None
        else layer
        for place, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        backbone["layers"] = layers


def by_block(forward: Callable[[], mx.array]) -> Job[mx.array]:
    """A forward pass without a gradient, one block after another.

    Asked for the end alone, mlx would go through the blocks of one job and then through
    those of the next, with one core at work. Where it is no CPU, nothing is changed.
    """
    global _noted
    _noted = [] if machine.backend() == "cpu" else None
    try:
        states, made = forward(), _noted or []
    finally:
        _noted = None
    made.reverse()
    while made:
        yield [made.pop()]
    yield [states]
    return states


def _noting(answer: Answer) -> Answer:
    """The same answer, which is noted where that is asked for."""
    noted = _noted
    if noted is None:
        return answer

    def note(*args: Any, **kwargs: Any) -> Any:
        made = answer(*args, **kwargs)
        if isinstance(made, mx.array):
            noted.append(made)
        return made

    return note
