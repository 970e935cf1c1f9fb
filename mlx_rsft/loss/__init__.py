"""From hidden states of supervised positions to sums of loss, and their gradient.

One kernel, three engines: ``dense`` is the oracle, ``fused`` for a frozen head,
``trained`` for a trained one.
"""

from mlx_rsft.loss.dense import dense
from mlx_rsft.loss.fused import fused
from mlx_rsft.loss.kernel import token_stats
from mlx_rsft.loss.sums import (
    NUM_BINS,
    Head,
    LossSums,
    Recipe,
    Slopes,
    Totals,
    number,
)
from mlx_rsft.loss.trained import trained

__all__ = [
    "NUM_BINS",
    "Head",
    "LossSums",
    "Recipe",
    "Slopes",
    "Totals",
    "dense",
    "fused",
    "number",
    "token_stats",
    "trained",
]
