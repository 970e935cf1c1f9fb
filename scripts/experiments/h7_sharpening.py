"""H7: labels drawn from r are learned as p ~ r^(1 / (1 - alpha)). An exact toy.

A table of logits, one context, five answers; the expected gradient of the objective, with
the weight that the product computes, is followed until it vanishes. Shapes: S seeds, A
answers.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives import TokenStats, build

ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9)
SEEDS = range(5)
ANSWERS = 5
STEPS = 1000
PACE = 0.5
TOLERANCE = 0.01


def measure() -> dict[str, Any]:
    """The fitted exponent of every alpha and seed, beside the law's."""
    rows: list[dict[str, Any]] = []
    for alpha in ALPHAS:
        fitted = exponents(alpha)
        law = 1 / (1 - alpha)
        off = max(abs(one / law - 1) for one in fitted)
        rows.append({"alpha": alpha, "law": law, "fitted": fitted, "off": off})
    holds = all(row["off"] <= TOLERANCE for row in rows)
    return {"rows": rows, "verdict": "supported" if holds else "not supported"}


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What was found, as a head and rows."""
    rows = [
        [
            f"{row['alpha']}",
            f"{row['law']:.2f}",
            f"{min(row['fitted']):.3f} to {max(row['fitted']):.3f}",
        ]
        for row in found["rows"]
    ]
    return ["alpha", "1 / (1 - alpha)", "fitted, 5 seeds"], rows


def exponents(alpha: float) -> list[float]:
    """The slope of log p over log r where training ends, for every seed's r."""
    laws = [np.random.default_rng(s).dirichlet(np.full(ANSWERS, 5.0)) for s in SEEDS]
    law_SA = np.stack(laws)
    weight = build({"name": "power", "alpha": alpha}).weight
    logits_SA = np.zeros_like(law_SA)
    for _ in range(STEPS):
        logp_SA = _log_softmax(logits_SA)
        held = TokenStats(mx.array(logp_SA.ravel().astype(np.float32)))
        pull_SA = law_SA * np.array(weight(held), np.float64).reshape(law_SA.shape)
        # Divided by p, which moves faster and comes to rest at the same place.
        rest_S1 = pull_SA.sum(1, keepdims=True)
        logits_SA += PACE * (pull_SA / np.exp(logp_SA) - rest_S1)
    pairs = zip(np.log(law_SA), _log_softmax(logits_SA), strict=True)
    return [float(np.polyfit(log_r, log_p, 1)[0]) for log_r, log_p in pairs]


def _log_softmax(logits_SA: np.ndarray) -> np.ndarray:
    return logits_SA - np.log(np.exp(logits_SA).sum(1, keepdims=True))
