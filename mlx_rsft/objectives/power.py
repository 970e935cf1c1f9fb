"""The power family: weigh each token by a power of its probability."""

from __future__ import annotations

import math

import mlx.core as mx

from mlx_rsft.errors import ConfigError
from mlx_rsft.objectives.tokens import TokenStats, TokenWeight


def power(alpha: float) -> TokenWeight:
    """Weigh each token by ``p ** alpha``: 0 is plain SFT, 1 is DFT.

    With labels drawn from ``r`` the optimum is ``p ~ r ** (1 / (1 - alpha))``: alpha
    sharpens, and 1 seeks the mode. A token that starts at ``p0`` needs of the order of
    ``(p0 ** -alpha - 1) / alpha`` steps to be learned, so new facts and formats need
    a small alpha or a floor.

    Args:
        alpha: Strength, >= 0, no unit. Above 1 confident tokens dominate.

    Returns:
        A weight in [0, 1] per token.

    Raises:
        ConfigError: If ``alpha`` is negative or not finite.

    References:
        Li et al., arXiv:2510.00526; Wu et al., arXiv:2508.05629 (alpha = 1).
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ConfigError(f"alpha = {alpha}: must be finite and at least 0.")

    def weight(stats: TokenStats) -> mx.array:
        return mx.exp(alpha * stats.logp) if alpha else mx.ones_like(stats.logp)

    return weight


def sft() -> TokenWeight:
    """Plain supervised fine-tuning: every token weighs 1, the loss is the NLL."""
    return power(0.0)


def dft() -> TokenWeight:
    """Dynamic fine-tuning: weigh each token by its probability.

    Removes the 1/p that the gradient of plain SFT hides, so that rare exact matches no
    longer dominate. Helps where the base model is capable, and cannot teach it tokens
    that it finds nearly impossible.

    References:
        Wu et al., arXiv:2508.05629.
    """
    return power(1.0)


def with_floor(weight: TokenWeight, floor: float) -> TokenWeight:
    """Never weigh a token less than ``floor``: bounds the slow-down to 1/floor.

    Args:
        weight: The objective to hold up.
        floor: In [0, 1]; 0 changes nothing.

    Raises:
        ConfigError: If ``floor`` is outside [0, 1].
    """
    if not 0 <= floor <= 1:
        raise ConfigError(f"floor = {floor}: must lie between 0 and 1.")
    if floor == 0:
        return weight
    return lambda stats: mx.maximum(weight(stats), floor)
