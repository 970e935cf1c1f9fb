"""A DoRA as the nearest LoRA: the whole change of each weight, cut to a rank.

By Eckart and Young (1936) no matrix of that rank is nearer, in the Frobenius norm, than
the one of the largest singular values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlx_rsft.export.live import Factors, Floats, floats
from mlx_rsft.models.fitted import weight


def as_lora(found: Sequence[Factors], rank: int) -> tuple[list[Factors], str]:
    """LoRA factors of a rank that change the weights nearly as the DoRA does.

    Returns:
        The factors, with scale 1; and how near they are, in words.
    """
    made: list[Factors] = []
    lost: dict[str, float] = {}
    for one in found:
        change = delta(one)
        left, sizes, right = np.linalg.svd(change, full_matrices=False)
        kept = np.sqrt(sizes[:rank])
        short = max(0, rank - len(kept))
        a = np.pad((kept[:, None] * right[:rank]).T, [(0, 0), (0, short)])
        b = np.pad((left[:, :rank] * kept).T, [(0, short), (0, 0)])
        made.append(replace(one, a=a, b=b, scale=1.0, magnitude=None))
        whole = float(np.linalg.norm(sizes)) or 1.0
        lost[one.path] = float(np.linalg.norm(sizes[rank:])) / whole
    worst = max(lost, key=lambda path: lost[path])
    mean = float(np.sqrt(np.mean(np.square(list(lost.values())))))
    said = f"{mean:.1%} of the change is lost (root mean square over modules), "
    return made, f"{said}at most {lost[worst]:.1%}, in {worst}"


def delta(one: Factors) -> Floats:
    """What an adapter of a linear module adds to its weight, ``[out, in]``."""
    plain = floats(weight(one.place.bare))
    change = np.float32(one.scale) * (one.b.T @ one.a.T)
    if one.magnitude is None:
        return change
    adapted = plain + change
    norms = np.linalg.norm(adapted, axis=1, keepdims=True)
    return one.magnitude[:, None] / norms * adapted - plain
