"""AdamW, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import mlx.optimizers as optim

from mlx_rsft.settings import OptimizerSettings


def learning_rate(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``num_steps``.

    Rises linearly over the warm-up, whose first step is already above 0, and then stays
    or falls to 0 just after the last step.
    """
    warm = math.ceil(settings.warmup * num_steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, num_steps - warm)
    falls = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }
    return settings.learning_rate * falls[settings.schedule]


def make(settings: OptimizerSettings) -> optim.AdamW:
    """AdamW with bias correction; its rate is set anew at each step."""
    return optim.AdamW(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        bias_correction=True,
    )
