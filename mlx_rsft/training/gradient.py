"""The gradient of a step's summed objective, one micro-batch after another.

The loss is not part of what is differentiated. First mlx lays out the backbone's forward
and backward pass, with a blank in place of the gradient that the loss will send back.
Then the forward pass is run, the loss is computed and differentiated chunk by chunk, the
blank is filled in, and the backward pass is run. So each array lives only as long as the
passes themselves need it; what is evaluated *while* mlx differentiates would live on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map, tree_map_with_path

from mlx_rsft import lanes, loss, shards
from mlx_rsft.data.conversation import Batch
from mlx_rsft.errors import MachineError
from mlx_rsft.lanes import Job
from mlx_rsft.loss import LossSums, Recipe, Slopes
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Known
from mlx_rsft.shards import Shard

Grads = Mapping[str, mx.array]
AT_ONCE = 8
"""Gradients of a shard that are asked for together: mlx looks at 20 side by side."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A micro-batch with all that is known of its supervised tokens beforehand."""

    batch: Batch
    known: Known
    reference_ND: mx.array | None = None
    trunk: TrunkStates | None = None


def gradient(
    passes: Passes, pieces: Sequence[Piece], recipe: Recipe
) -> tuple[LossSums, Any]:
    """Loss sums over all pieces, and the gradient of the summed objective.

    Args:
        passes: Of the model; kept from step to step, since each shape is compiled once.
        pieces: The micro-batches.
        recipe: What is summed.

    Returns:
        The sums, and a tree like the model's trainable parameters.

    Raises:
        MachineError: If this backend does not let arrays be filled in later.
    """
    _require_views()
    parts: list[LossSums] = []
    total: Any = None
    for piece in pieces:
        sums, grads = _of_piece(passes, piece, recipe)
        total = grads if total is None else tree_map(mx.add, total, grads)
        del grads  # the next piece would be computed beside them
        mx.eval(total)
        parts.append(sums)
    assert total is not None, "a step has rows"

    def of(name: str, _: mx.array) -> mx.array:
        return total[name]

    # The optimizer's state has the model's own tree, with places that hold nothing.
    tree = tree_map_with_path(of, passes.split.model.trainable_parameters())
    return functools.reduce(LossSums.__add__, parts), tree


def _of_piece(passes: Passes, piece: Piece, recipe: Recipe) -> tuple[LossSums, Grads]:
    """Sums of one micro-batch, and its gradient by parameter name."""
    split, batch = passes.split, piece.batch
    jobs = [_laid_out(passes, shard) for shard in shards.cut(batch, piece.trunk)]
    blanks, hidden, grads = zip(*lanes.together(jobs), strict=True)
    hidden_ND = mx.concatenate(list(hidden)).astype(split.no_states.dtype)
    del hidden
    slopes = _loss(split, piece, hidden_ND, recipe)
    del hidden_ND
    begin = 0
    for blank_ND in blanks:
        end = begin + blank_ND.shape[0]
        _fill(blank_ND, slopes.hidden_ND[begin:end])
        begin = end
    found = functools.reduce(_added, lanes.together([*map(_computed, grads)]))
    return slopes.sums, _added(found, slopes.parameters)


def _laid_out(passes: Passes, shard: Shard) -> Job[tuple[mx.array, mx.array, Grads]]:
    """Both passes of a shard, the first one run: its blank, hidden states, gradient."""
    like = passes.split.no_states
    blank_ND = mx.zeros((shard.rows_N.size, like.shape[-1]), mx.float32)
    yield [blank_ND]
    hidden_ND, grads = passes(shard.tokens_BT, shard.rows_N, blank_ND, shard.trunk)
    yield [hidden_ND]
    return blank_ND, hidden_ND, grads


def _computed(grads: Grads) -> Job[Grads]:
    """The backward pass, from the last block down, a few gradients at a time.

    Asked for all of them at once, mlx would go through one shard after the other.
    """
    downwards = list(grads.values())[::-1]
    for at in range(0, len(downwards), AT_ONCE):
        yield downwards[at : at + AT_ONCE]
    return grads


def _loss(
    split: SplitModel, piece: Piece, hidden_ND: mx.array, recipe: Recipe
) -> Slopes:
    """The loss of one micro-batch, by the engine that its head allows."""
    targets_N, known = piece.batch.targets_N, piece.known
    head = split.head_parameters()
    if head:
        return loss.trained(split.head_with, head, hidden_ND, targets_N, recipe, known)
    return loss.fused(
        split.head, hidden_ND, targets_N, recipe, known, piece.reference_ND
    )


def _fill(blank_ND: mx.array, slope_ND: mx.array) -> None:
    """Write into an array that a laid out computation is going to read."""
    np.array(blank_ND, copy=False)[...] = np.array(slope_ND.astype(mx.float32))


@functools.cache
def _require_views() -> None:
    """Try once that what is filled in is what gets read: a blank would train nothing."""
    blank = mx.zeros((3,), mx.float32)
    mx.eval(blank)
    doubled = blank * 2
    _fill(blank, mx.arange(1, 4))
    if doubled.tolist() != [2.0, 4.0, 6.0]:
        raise MachineError(
            "This backend of mlx does not show numpy the memory of its arrays, which "
            "training relies on.",
            hint="Run on Metal or on the CPU backend, and report which one this is.",
        )


def _added(grads: Grads, parts: Grads) -> Grads:
    """Sums by name; what has no part stays."""
    return {**grads, **{name: grads[name] + part for name, part in parts.items()}}
