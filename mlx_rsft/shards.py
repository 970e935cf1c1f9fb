"""A batch cut by its rows, so that every core runs the model on a part of its own.

Shapes: B rows, T positions, N supervised positions, D width.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import mlx.core as mx

from mlx_rsft import lanes
from mlx_rsft.data.conversation import Batch
from mlx_rsft.models import seam
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel


class Shard(NamedTuple):
    """Some rows of a batch.

    Attributes:
        rows_N: Flat positions ``b * T + t`` in these rows.
        trunk: What the frozen blocks made of them.
    """

    tokens_BT: mx.array
    rows_N: mx.array
    trunk: TrunkStates | None


def cut(batch: Batch, trunk: TrunkStates | None) -> list[Shard]:
    """The batch in as many shards as are computed at once; rows stay in order."""
    num_rows, width = batch.tokens_BT.shape
    parts = min(lanes.count(), num_rows)
    edges = [num_rows * part // parts for part in range(parts + 1)]
    starts = [0, *accumulate(batch.counts)]  # of each row among supervised positions
    return [
        Shard(
            batch.tokens_BT[begin:end],
            batch.rows_N[starts[begin] : starts[end]] - begin * width,
            trunk and TrunkStates(trunk.depth, trunk.values_BTD[begin:end]),
        )
        for begin, end in pairwise(edges)
    ]


def supervised(
    split: SplitModel, batch: Batch, trunk: TrunkStates | None = None
) -> mx.array:
    """Hidden states (N, D) of the supervised positions, without a gradient."""
    passes = [partial(split.supervised, *shard) for shard in cut(batch, trunk)]
    return mx.concatenate(lanes.together([*map(seam.by_block, passes)]))
