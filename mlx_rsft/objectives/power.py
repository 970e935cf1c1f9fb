"""Gates that are functions of p alone through a power: SFT, DFT and between."""

from __future__ import annotations

import mlx.core as mx

from mlx_rsft.objectives.limits import at_least, between
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
    at_least("alpha", alpha, 0)

    def weight(stats: TokenStats) -> mx.array:
        return mx.exp(alpha * stats.logp) if alpha else mx.ones_like(stats.logp)

    return weight


def sft() -> TokenWeight:
    """Plain supervised fine-tuning: weight 1, the loss is the NLL.

    The best choice where the base model is weak: facts, identity, new formats.
    """
    return power(0.0)


def dft() -> TokenWeight:
    """Dynamic fine-tuning: weight ``p``, in [0, 1].

    Removes the 1/p that the gradient of plain SFT hides, so that rare exact matches no
    longer dominate. Helps where the base model is capable, and cannot teach it tokens
    that it finds nearly impossible.

    References:
        Wu et al., arXiv:2508.05629.
    """
    return power(1.0)


def blend(a: float) -> TokenWeight:
    """Mix SFT and DFT: weight ``(1 - a) + a p``, in [1 - a, 1].

    Like a floor it bounds the slow-down on new tokens, but also on likely ones.

    Args:
        a: Share of DFT, 0 to 1.
    """
    between("a", a, 0, 1)
    return lambda stats: (1 - a) + a * stats.p


def floor(f: float) -> TokenWeight:
    """DFT that never lets go of a token: weight ``max(p, f)``, in [f, 1].

    Bounds the slow-down on new tokens to ``1 / f``; the authors of DFT advise 0.1.

    Args:
        f: Least weight, 0 to 1.
    """
    return with_floor(dft(), f)


def with_floor(weight: TokenWeight, f: float) -> TokenWeight:
    """Hold any weight up to at least ``f``; 0 changes nothing."""
    between("floor", f, 0, 1)
    if f == 0:
        return weight
    return lambda stats: mx.maximum(weight(stats), f)


def threshold(tau: float = 0.1) -> TokenWeight:
    """Drop unlikely tokens: weight 1 where ``p >= tau``, else 0.

    As good as DFT where the prior is strong; a token below the threshold is never
    learned at all.

    Args:
        tau: Probability, 0 to 1.

    References:
        ProFit, arXiv:2601.09195; arXiv:2510.00526.
    """
    between("tau", tau, 0, 1)
    return lambda stats: (stats.p >= tau).astype(mx.float32)


def focal(gamma: float = 2.0) -> TokenWeight:
    """Favour unlikely tokens: ``(1-p)^(g-1) ((1-p) - g p log p)``, in [0, 1 + g/e].

    The opposite lean of DFT: the exact gate of the focal loss ``-(1-p)^g log p``.

    Args:
        gamma: At least 1.

    References:
        Lin et al., arXiv:1708.02002.
    """
    at_least("gamma", gamma, 1)

    def weight(stats: TokenStats) -> mx.array:
        rest = mx.maximum(1 - stats.p, 0)
        return rest ** (gamma - 1) * (rest - gamma * stats.p * stats.logp)

    return weight
