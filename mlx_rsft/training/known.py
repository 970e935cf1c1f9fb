"""What is known of supervised tokens before the head runs. N tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import mlx.core as mx
import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.objectives import Known
from mlx_rsft.objectives.composition import Composition


def beforehand(
    group: Sequence[Example],
    rows: Sequence[int],
    composition: Composition,
    kept: Collection[int],
) -> Known:
    """Row, weight and exemption of every supervised token of some examples.

    Args:
        group: The examples.
        rows: The place of each among those of the step.
        composition: Says which rows the objective is for, and how rows are weighed.
        kept: Token ids that it leaves at weight 1.
    """
    counts = np.array([example.num_supervised for example in group])
    row_tokens = np.repeat(counts, counts).astype(np.float32)
    scale = np.repeat([example.weight for example in group], counts)
    if composition.normalise == "sequence":
        scale = scale / row_tokens
    return Known(
        row=mx.array(np.repeat(rows, counts).astype(np.int32)),
        row_tokens=mx.array(row_tokens),
        scale=mx.array(scale.astype(np.float32)),
        plain=_plain(group, counts, set(composition.where), kept),
        num_rows=len(group),
    )


def _plain(
    group: Sequence[Example], counts: np.ndarray, where: set[str], kept: Collection[int]
) -> mx.array | None:
    """(N,) whether a token is trained by plain SFT; None if nobody is exempt."""
    if not where and not kept:
        return None
    outside = [bool(where) and not where & set(example.tags) for example in group]
    targets = [
        token
        for example in group
        for start, end in example.spans
        for token in example.tokens[start:end]
    ]
    spared = np.isin(np.array(targets), list(kept))
    return mx.array((np.repeat(outside, counts) | spared).tolist())
