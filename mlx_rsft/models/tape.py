"""What training keeps of a batch, read off mlx's graph before anything is computed.

The loss is computed while the forward pass is still being differentiated, and until then
mlx holds every array that hangs on something trained, and every array that one of these
was made from. The graph says which those are, for any architecture, adapter and backend,
and with weights that are not there. Shapes: B rows, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rsft.errors import ModelError
from mlx_rsft.models import cpu_kernels, seam
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel

SHARES = frozenset(
    {
        "Broadcast",
        "ExpandDims",
        "Squeeze",
        "Transpose",
        "Slice",
        "AsStrided",
        "Split",
        "View",
    }
)
"""Operations whose result is another look at the memory of their first input."""
FOLDS = frozenset({"Reshape", "Flatten", "Unflatten"})
"""Operations that share if the input lies in order, and copy otherwise."""
SCATTERS = frozenset({"Broadcast", "Transpose", "Slice", "AsStrided", "Split"})
"""Operations whose result does not lie in order."""
ORDERS = "Depends"
"""An operation whose every result is the input in the same place."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that a batch holds when its loss is computed.

    Attributes:
        scores: Arrays of one number per pair of positions: attention.
        others: Everything else.
    """

    scores: int
    others: int


class Outline(SplitModel):
    """The parts of a model whose weights are not there, so that nothing is checked."""

    def hidden(self, tokens_BT: mx.array, trunk: TrunkStates | None = None) -> mx.array:
        with cpu_kernels.outlined():
            return super().hidden(tokens_BT, trunk)

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        with cpu_kernels.outlined():
            return super().trunk(tokens_BT, depth)

    def _check(self) -> None:
        pass


class StockOutline(Outline):
    """The same without the CPU's stand-ins, as the model is run on other backends."""

    def hidden(self, tokens_BT: mx.array, trunk: TrunkStates | None = None) -> mx.array:
        assert trunk is None, "an outline is of the whole model"
        return self.backbone(tokens_BT)

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        return TrunkStates(depth, seam.run_below(self.backbone, tokens_BT, depth))


def kept(split: SplitModel, rows: int, width: int) -> Kept:
    """What a batch of ``rows`` rows of ``width`` tokens holds; computes nothing.

    Raises:
        ModelError: If the model's code wants numbers, not shapes.
    """
    tape = _Tape(trained=_trained_inputs(split))
    for node in _graph(split, rows, width):
        tape.add(node)
    pair = [size for size, shape in tape.held() if shape[-2:] == (width, width)]
    return Kept(sum(pair), sum(size for size, _ in tape.held()) - sum(pair))


def _leaves(split: SplitModel) -> list[tuple[str, mx.array]]:
    return tree_flatten(split.model.parameters())  # pyright: ignore


def _trained_inputs(split: SplitModel) -> list[bool]:
    """Whether each input of the graph is trained: the tokens, then every parameter."""
    trained = dict(tree_flatten(split.model.trainable_parameters()))
    return [False, *(name in trained for name, _ in _leaves(split))]


def _graph(split: SplitModel, rows: int, width: int) -> Sequence[Mapping[str, Any]]:
    leaves = _leaves(split)
    names = [name for name, _ in leaves]
    nodes: list[Mapping[str, Any]] = []

    def forward(tokens_BT: mx.array, *values: mx.array) -> mx.array:
        split.model.update(tree_unflatten(list(zip(names, values, strict=True))))
        return split.hidden(tokens_BT)

    tokens_BT = mx.zeros((rows, width), mx.int32)
    try:
        mx.export_function(
            nodes.append, forward, tokens_BT, *[value for _, value in leaves]
        )
    except (ValueError, RuntimeError, TypeError) as problem:
        raise ModelError(
            f"What the model keeps cannot be read off its graph ({problem}).",
            hint="Measure a run instead: train --steps 2 writes peak_bytes.",
        ) from problem
    finally:
        split.model.update(tree_unflatten(leaves))
    return nodes


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Memory of one array; a place in it is what names in the graph stand for."""

    num_bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    buffer: _Buffer | None
    traced: bool
    in_order: bool = True


class _Tape:
    """The graph, node by node: who shares whose memory, and what is held."""

    def __init__(self, trained: Sequence[bool]) -> None:
        self._trained = trained
        self._values: dict[str, _Value] = {}
        self._held: dict[int, _Buffer] = {}

    def held(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(held.num_bytes, held.shape) for held in self._held.values()]

    def add(self, node: Mapping[str, Any]) -> None:
        """Follow one entry; inputs and parameters are no memory of the batch."""
        if node["type"] == "inputs":
            for (name, *_), trained in zip(node["inputs"], self._trained, strict=True):
                self._values[name] = _Value(None, trained)
        elif node["type"] == "constants":
            self._values |= {name: _Value(None, False) for name, _ in node["constants"]}
        elif node["type"] == "primitive":
            self._compute(node)

    def _compute(self, node: Mapping[str, Any]) -> None:
        sources = [self._values[name] for name, *_ in node["inputs"]]
        traced = any(source.traced for source in sources)
        outputs = node["outputs"]
        for place, (name, shape, dtype) in enumerate(outputs):
            value = _shared(node["name"], sources, place, traced)
            if value is None:
                size = math.prod(shape) * dtype.size
                value = _Value(_Buffer(size, tuple(shape)), traced)
            self._values[name] = value
            sources_and_result = [*sources, value] if traced else []
            for part in sources_and_result:
                if part.buffer is not None:
                    self._held[id(part.buffer)] = part.buffer


def _shared(
    name: str, sources: Sequence[_Value], place: int, traced: bool
) -> _Value | None:
    """The value of an operation that shares its input's memory; None if it computes."""
    if name == ORDERS:
        return _Value(sources[place].buffer, traced, sources[place].in_order)
    if name in SHARES:
        in_order = sources[0].in_order and name not in SCATTERS
        return _Value(sources[0].buffer, traced, in_order)
    if name in FOLDS and sources[0].in_order:
        return _Value(sources[0].buffer, traced)
    return None
