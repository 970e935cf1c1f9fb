"""A token that starts at p0 takes of the order of (p0^-alpha - 1) / alpha steps.

An exact toy: a table of logits over 50 tokens, gradient steps with the weight that the
product computes, until the token's probability is a half. Plain SFT's law is -log p0.
Shapes: S seeds, V tokens.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives import TokenStats, build

OBJECTIVES = {
    "sft": 0.0,
    "power:alpha=0.25": 0.25,
    "power:alpha=0.5": 0.5,
    "power:alpha=0.75": 0.75,
    "dft": 1.0,
    "dft:floor=0.1": None,
}
"""Their alpha; with a floor the law has another form."""
STARTS = (1e-2, 1e-3, 1e-4)
SEEDS = range(5)
TOKENS = 50
FLOOR = 0.1
ORDER = 2.0
"""Within this factor of the law is of its order."""


def measure() -> dict[str, Any]:
    """Steps of every objective from every start, beside the law's."""
    rows: list[dict[str, Any]] = []
    for name, alpha in OBJECTIVES.items():
        for p0 in STARTS:
            steps = took(name, p0)
            row = {"objective": name, "p0": p0, "law": law(alpha, p0), "steps": steps}
            rows.append(row)
    apart = [
        max(max(row["steps"]) / row["law"], row["law"] / min(row["steps"]))
        for row in rows
    ]
    worst = max(apart)
    verdict = "supported" if worst <= ORDER else "not supported"
    return {"rows": rows, "worst": worst, "verdict": verdict}


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What was found, as a head and rows."""
    rows = [
        [
            f"`{row['objective']}`",
            f"{row['p0']:g}",
            f"{row['law']:.0f}",
            f"{min(row['steps'])} to {max(row['steps'])}",
        ]
        for row in found["rows"]
    ]
    return ["objective", "p0", "law", "steps, 5 seeds"], rows


def law(alpha: float | None, p0: float) -> float:
    """Steps by the law; under the floor a token moves like plain SFT, at its pace."""
    if alpha is None:
        return math.log(FLOOR / p0) / FLOOR + (1 / FLOOR - 1 / 0.5)
    return (p0**-alpha - 1) / alpha if alpha else -math.log(p0)


def took(name: str, p0: float) -> list[int]:
    """Steps of each seed; the seeds differ in how the other tokens begin."""
    weight = build({"name": name}).weight
    logits_SV = np.stack([_start(seed, p0) for seed in SEEDS])
    done = np.zeros(len(SEEDS), int)
    steps = 0
    while not done.all():
        steps += 1
        p_SV = np.exp(logits_SV)
        p_SV /= p_SV.sum(1, keepdims=True)
        held = TokenStats(mx.array(np.log(p_SV[:, 0]).astype(np.float32)))
        weight_S1 = np.array(weight(held), np.float64)[:, None]
        logits_SV -= weight_S1 * p_SV
        logits_SV[:, 0] += weight_S1[:, 0]
        ahead = logits_SV[:, 0] - np.log(np.exp(logits_SV[:, 1:]).sum(1))
        done[(ahead >= 0) & (done == 0)] = steps
    return done.tolist()


def _start(seed: int, p0: float) -> np.ndarray:
    """Logits of a token of probability p0 and of others that share the rest unevenly."""
    others = np.random.default_rng(seed).dirichlet(np.ones(TOKENS - 1))
    return np.log(np.concatenate([[p0], (1 - p0) * others]))
