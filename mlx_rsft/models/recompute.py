"""Gradient checkpointing: a block keeps its inputs, and is run again for its gradient."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_rsft.errors import ConfigError
from mlx_rsft.models.seam import Answer

AUTO, OFF, ALL = "auto", "off", "all"


def chosen(setting: str, trained: range) -> range:
    """The blocks that ``off``, ``all`` or a number names: the lowest that are trained.

    What the lowest keep is read last, so they are run again when memory is emptiest.

    Raises:
        ConfigError: If it is none of these, or more blocks than are trained.
    """
    if setting in (OFF, ALL):
        return trained if setting == ALL else trained[:0]
    if setting.isdecimal() and int(setting) <= len(trained):
        return trained[: int(setting)]
    raise ConfigError(
        f"{setting!r} does not say how many of the {len(trained)} trained blocks.",
        where="training.grad_checkpoint",
        hint=f"Write off, auto, all, or a number up to {len(trained)}.",
    )


def recomputing(block: nn.Module, forward: Answer) -> Answer:
    """A block that gives the same, dropout included, and keeps its inputs alone.

    Args:
        block: Whose parameters are read.
        forward: How it is run: by itself, or as something else runs it.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """

    def answer(hidden: mx.array, *args: Any, **kwargs: Any) -> Any:
        first = _random_state()
        runs = 0

        # Handed over explicitly: what it merely closes over would get no gradient.
        def run(parameters: Any, hidden: mx.array) -> Any:
            nonlocal runs
            runs += 1
            now = _random_state()
            mx.random.seed(first)
            block.update(parameters)
            made = forward(hidden, *args, **kwargs)
            if runs > 1:
                mx.random.seed(now)
            return made

        return mx.checkpoint(run)(block.trainable_parameters(), hidden)

    return answer


def _random_state() -> int:
    """The seed that puts mlx's random numbers where they are now."""
    state: Any = mx.random.state
    high, low = np.array(state[0]).tolist()
    return high << 32 | low
