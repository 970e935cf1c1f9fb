"""What pulls back: anchors to the base model, and pulls that are objectives themselves.

All are ``strength * KL(r | p)`` with a held ``r``: one gradient, ``strength * (p - r)``.
The exception is ``k3``, which folds into the weight and needs one number per token.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_rsft import exponential
from mlx_rsft.objectives.limits import above, at_least, between
from mlx_rsft.objectives.power import sft
from mlx_rsft.objectives.tokens import Pull, TokenStats, TokenWeight, needed

MOST_RATIO = 10.0
"""Bound on ``p_base / p`` in ``k3``, against tokens that have become impossible."""


def _log_softmax(logits: mx.array) -> mx.array:
    return logits - exponential.softmax(logits).lse


def kl(strength: float) -> Pull:
    """Anchor the whole distribution to the base model: ``strength * KL(base | p)``.

    With ``dft`` this is ASFT. Costs a forward pass without the adapter.

    Args:
        strength: At least 0; 0.05 in the paper.

    References:
        ASFT, arXiv:2509.23753.
    """
    at_least("lambda", strength, 0)

    def base(logits: mx.array, reference: mx.array | None) -> mx.array:
        del logits
        return _log_softmax(needed(reference))

    return Pull(strength, base, needs_reference=True)


def with_k3(weight: TokenWeight, strength: float) -> TokenWeight:
    """Anchor demonstrated tokens: adds ``strength (min(p_base / p, 10) - 1)``.

    The gradient of the k3 estimate of the same divergence at the demonstrated token, so
    one cached number per token is enough. The sum can fall to ``-strength``.

    Args:
        weight: The weight to anchor.
        strength: At least 0; 0.005 to 0.03 are in use.
    """
    at_least("lambda", strength, 0)

    def anchored(stats: TokenStats) -> mx.array:
        fallen = needed(stats.known.reference_logp) - stats.logp
        ratio = mx.minimum(mx.exp(mx.minimum(fallen, 3.0)), MOST_RATIO)
        return weight(stats) + strength * (ratio - 1)

    return anchored


def gem(beta: float = 0.7) -> TokenWeight:
    """Reverse KL with an entropy bonus: logit gradient ``softmax(z / beta) - onehot``.

    SFT that is pulled *away* from its own sharpened distribution; keeps diversity.

    Args:
        beta: Above 0, at most 1.

    References:
        GEM, arXiv:2408.16673.
    """
    above("beta", beta, 0)
    between("beta", beta, 0, 1)
    return sft()


def gem_pull(beta: float = 0.7) -> Pull:
    """The pull that makes ``gem`` of SFT."""

    def sharpened(logits: mx.array, reference: mx.array | None) -> mx.array:
        del reference
        return _log_softmax(logits / beta)

    return Pull(-1.0, sharpened)


def label_smoothing(epsilon: float = 0.1) -> TokenWeight:
    """SFT towards ``(1 - eps) onehot + eps / V``; weight ``1 - eps``.

    Raises every token of the vocabulary, junk too; keep it small.

    Args:
        epsilon: 0 to below 1.
    """
    between("epsilon", epsilon, 0, 0.99)
    return lambda stats: mx.full(stats.logp.shape, 1 - epsilon)


def label_smoothing_pull(epsilon: float = 0.1) -> Pull:
    """The pull towards the uniform distribution."""

    def uniform(logits: mx.array, reference: mx.array | None) -> mx.array:
        del reference
        return mx.full(logits.shape, -mx.log(mx.array(float(logits.shape[-1]))).item())

    return Pull(epsilon, uniform)
