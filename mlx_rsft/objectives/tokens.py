"""What an objective may know of a token, and what it answers: a weight.

The engine holds the weight constant, so that each objective has the logit gradient
``weight * (softmax - onehot)``; an objective never sees logits or gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Facts of N supervised tokens.

    Attributes:
        logp: (N,) float32, nats: log-probability of the demonstrated token.
    """

    logp: mx.array


TokenWeight = Callable[[TokenStats], mx.array]
"""A function from N token facts to N weights, (N,) float32, finite and >= 0."""
