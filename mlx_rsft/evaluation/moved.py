"""How far a model has moved from its base, the same model with the adapter off.

All at the demonstrated tokens, in nats per token. On the rows of a task this is drift
that was asked for, in part; on general questions it is a side effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_rsft import exponential, lanes, shards
from mlx_rsft.data.batching import collate, micro_batches
from mlx_rsft.data.conversation import Batch, Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation.tokenwise import TOKEN_BUDGET
from mlx_rsft.loss.kernel import CHUNK_BYTES, Rows, chunks, read
from mlx_rsft.models.fitted import OffSwitch, places
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk

MOST_FALLEN = 80.0
"""Nats beyond which ``exp`` would overflow."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One row's drift, summed over its supervised tokens, nats.

    Attributes:
        kl: Forward divergence ``KL(base | model)`` of whole distributions.
        k3: ``p_base / p - 1 - log(p_base / p)`` of the demonstrated token: what the
            anchor ``k3`` holds down. No estimate of a divergence on such tokens.
        rise: NLL under the model less that under the base.
        tokens: Supervised tokens.
    """

    kl: float
    k3: float
    rise: float
    tokens: int


def compare(
    split: SplitModel, examples: Sequence[Example], trunk: Trunk | None = None
) -> list[Moved]:
    """The drift of every row, in order.

    Args:
        split: The model.
        examples: Rows with what is demonstrated in them.
        trunk: Knows what the model's frozen blocks make of a row: the base's blocks too.

    Raises:
        ConfigError: If the base is not at hand: no adapter, or other weights trained.
    """
    if not places(split.model):
        raise ConfigError(
            "Drift compares a model with itself without its adapter, and there is no "
            "LoRA or DoRA adapter.",
            where="evaluation.metrics",
            hint="Pass --adapter, or leave the drift metrics out.",
        )
    switch = OffSwitch(split.model)
    found: dict[int, Moved] = {}
    lengths = [len(row.tokens) for row in examples]
    for group in micro_batches(lengths, TOKEN_BUDGET, lanes.count()):
        rows = [examples[place] for place in group]
        found.update(zip(group, _rows(split, switch, rows, trunk), strict=True))
    return [found[place] for place in range(len(examples))]


def _rows(
    split: SplitModel,
    switch: OffSwitch,
    rows: Sequence[Example],
    trunk: Trunk | None,
) -> Iterator[Moved]:
    batch = collate(rows)
    tokens = [row.tokens for row in rows]
    states = trunk.states(tokens, batch.tokens_BT.shape[1]) if trunk else None
    facts = _tokens(split, switch, batch, states)
    begin = 0
    for row in rows:
        end = begin + row.num_supervised
        kl, k3, rise = facts[:, begin:end].sum(axis=1, dtype=np.float64).tolist()
        yield Moved(kl, k3, rise, end - begin)
        begin = end


def _tokens(
    split: SplitModel, switch: OffSwitch, batch: Batch, states: TrunkStates | None
) -> np.ndarray:
    """KL, k3 and rise of each supervised token, (3, N)."""
    hidden_ND = shards.supervised(split, batch, states)
    with switch.off():
        base_ND = shards.supervised(split, batch, states)
    parts: list[np.ndarray] = []
    for start, end in chunks(split.head, hidden_ND, CHUNK_BYTES // 2):
        targets_N = batch.targets_N[start:end]
        now = read(split.head(hidden_ND[start:end]), targets_N)
        with switch.off():  # the head may have an adapter too
            base = read(split.head(base_ND[start:end]), targets_N)
        fallen_N = base.logp_N - now.logp_N
        ratio_N = mx.exp(mx.minimum(fallen_N, MOST_FALLEN))
        k3_N = ratio_N - 1 - fallen_N
        parts.append(np.array(mx.stack([_kl(base, now), k3_N, fallen_N])))
    return np.concatenate(parts, axis=1)


def _kl(base: Rows, now: Rows) -> mx.array:
    apart_NV = base.logits_NV - now.logits_NV
    mean_N = exponential.total(base.raised_NV * apart_NV) / base.total_N
    return mx.maximum(mean_N - base.lse_N + now.lse_N, 0)
