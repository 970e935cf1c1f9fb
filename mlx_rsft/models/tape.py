"""What training keeps of a batch, read off mlx's graph before anything is computed.

Between the forward and the backward pass mlx holds what the one has made and the other
will read. The graph says which arrays those are, for any architecture, adapter and
backend, and with weights that are not there. Shapes: B rows, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.errors import ModelError
from mlx_rsft.models import cpu_kernels, passes, seam
from mlx_rsft.models.seam import Answer, TrunkStates
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
"""Operations that share if the input lies in order, or if they only cut its last axis."""
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

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        with cpu_kernels.outlined():
            return super().trunk(tokens_BT, depth)

    def _run(
        self,
        tokens_BT: mx.array,
        trunk: TrunkStates | None,
        answers: dict[int, Answer],
    ) -> mx.array:
        with cpu_kernels.outlined():
            return super()._run(tokens_BT, trunk, answers)

    def _again(self, block: nn.Module, forward: Answer) -> Answer:
        return _keeping_input(block, forward)

    def _check(self) -> None:
        pass

    def _agree(self, part: mx.array, whole: mx.array) -> bool:
        del part, whole
        return True


def _keeping_input(block: nn.Module, forward: Answer) -> Answer:
    """Something whose backward pass reads as much as the input of a block, and no more."""

    def answer(hidden_BTD: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        leaves: list[tuple[str, mx.array]] = tree_flatten(block.trainable_parameters())  # pyright: ignore
        moved = sum(value.sum() for _, value in leaves)
        made = mx.square(hidden_BTD + moved)
        shape = forward(hidden_BTD, *args, **kwargs).shape
        if shape == made.shape:
            return made
        return made.reshape(1, -1, shape[-1])[:, : shape[1]]  # a trimmed block's

    return answer


class StockOutline(Outline):
    """The same without the CPU's stand-ins, as the model is run on other backends."""

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        return TrunkStates(depth, seam.run_below(self.backbone, tokens_BT, depth))

    def _run(
        self,
        tokens_BT: mx.array,
        trunk: TrunkStates | None,
        answers: dict[int, Answer],
    ) -> mx.array:
        assert trunk is None, "an outline is of the whole model"
        answers = answers | self._recomputing(answers)
        with seam.standing_in(self.backbone, answers):
            return self.backbone(tokens_BT)


def kept(split: SplitModel, rows: int, width: int, supervised: int) -> Kept:
    """What a batch of ``rows`` rows of ``width`` tokens holds; computes nothing.

    Args:
        split: An outline.
        rows: Of the batch.
        width: Positions of each.
        supervised: Positions of all rows that reach the head.

    Raises:
        ModelError: If the model's code wants numbers, not shapes.
    """
    nodes = _graph(split, rows, width, supervised)
    hidden = _hidden(nodes)
    tape = _Tape(_needed_for(hidden, nodes))
    for node in nodes:
        tape.add(node)
    tape.hold(hidden)
    pair = [size for size, shape in tape.held() if shape[-2:] == (width, width)]
    return Kept(sum(pair), sum(size for size, _ in tape.held()) - sum(pair))


Node = Mapping[str, Any]


def _graph(split: SplitModel, rows: int, width: int, supervised: int) -> Sequence[Node]:
    """The forward and the backward pass; the first output is the hidden states."""
    leaves: list[tuple[str, mx.array]] = tree_flatten(split.model.parameters())  # pyright: ignore
    nodes: list[Node] = []

    def both(
        tokens_BT: mx.array, rows_N: mx.array, slope_ND: mx.array, *values: mx.array
    ) -> Any:
        given = dict(zip((name for name, _ in leaves), values, strict=True))
        hidden_ND, grads = passes.laid_out(
            split, given, tokens_BT, rows_N, slope_ND, None
        )
        return [hidden_ND, *grads.values()]

    tokens_BT = mx.zeros((rows, width), mx.int32)
    rows_N = mx.zeros((supervised,), mx.int32)
    values = [value for _, value in leaves]
    try:
        like = split.no_states
        slope_ND = mx.zeros((supervised, like.shape[-1]), like.dtype)
        mx.export_function(nodes.append, both, tokens_BT, rows_N, slope_ND, *values)
    except (ValueError, RuntimeError, TypeError) as problem:
        raise ModelError(
            f"What the model keeps cannot be read off its graph ({problem}).",
            hint="Measure a run instead: train --steps 2 writes peak_bytes.",
        ) from problem
    return nodes


def _hidden(nodes: Sequence[Node]) -> str:
    (last,) = (node for node in nodes if node["type"] == "outputs")
    return last["outputs"][0][0]


def _needed_for(name: str, nodes: Sequence[Node]) -> frozenset[str]:
    """The arrays that one is computed from, and that one."""
    makers = {
        name: node
        for node in nodes
        if "outputs" in node
        for name, *_ in node["outputs"]
    }
    queue = [name]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += [source for source, *_ in makers.get(name, {}).get("inputs", ())]
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Memory of one array; a place in it is what names in the graph stand for."""

    num_bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    buffer: _Buffer | None
    in_order: bool = True


class _Tape:
    """The graph, node by node: who shares whose memory, and what is held."""

    def __init__(self, forward: frozenset[str]) -> None:
        self._forward = forward
        self._values: dict[str, _Value] = {}
        self._held: dict[int, _Buffer] = {}

    def held(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(held.num_bytes, held.shape) for held in self._held.values()]

    def add(self, node: Node) -> None:
        """Follow one entry; inputs and parameters are no memory of the batch."""
        if node["type"] == "inputs":
            self._values |= {name: _Value(None) for name, *_ in node["inputs"]}
        elif node["type"] == "constants":
            self._values |= {name: _Value(None) for name, *_ in node["constants"]}
        elif node["type"] == "primitive":
            self._compute(node)

    def _compute(self, node: Node) -> None:
        names = [name for name, *_ in node["inputs"]]
        sources = [self._values[name] for name in names]
        backward = self._forward.isdisjoint(name for name, *_ in node["outputs"])
        for place, (name, shape, dtype) in enumerate(node["outputs"]):
            value = _shared(node["name"], sources, place)
            if value is None and node["name"] in FOLDS and _splits_last(node, shape):
                value = sources[0]
            if value is None:
                size = math.prod(shape) * dtype.size
                value = _Value(_Buffer(size, tuple(shape)))
            self._values[name] = value
        if backward:
            for name in names:
                if name in self._forward:
                    self.hold(name)

    def hold(self, name: str) -> None:
        """Count the memory behind an array."""
        buffer = self._values[name].buffer
        if buffer is not None:
            self._held[id(buffer)] = buffer


def _splits_last(node: Node, shape: Sequence[int]) -> bool:
    """Whether a fold cuts the last axis and nothing else; that needs no order."""
    _, before, *_ = node["inputs"][0]
    return list(shape[: len(before) - 1]) == list(before[:-1])


def _shared(name: str, sources: Sequence[_Value], place: int) -> _Value | None:
    """The value of an operation that shares its input's memory; None if it computes."""
    if name == ORDERS:
        return sources[place]
    if name in SHARES:
        in_order = sources[0].in_order and name not in SCATTERS
        return _Value(sources[0].buffer, in_order)
    if name in FOLDS and sources[0].in_order:
        return _Value(sources[0].buffer)
    return None
