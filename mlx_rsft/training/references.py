"""What other models think of the tokens: the base model, and the model some steps ago.

Neither needs a second copy of the weights: the base model is the model at hand without
its adapter, the lagged one has other values in what is trained.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rsft import loss, shards
from mlx_rsft.data.conversation import KEY_BYTES, Batch, Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.models.fitted import OffSwitch
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel, without_dropout
from mlx_rsft.objectives import Objective
from mlx_rsft.objectives.tokens import LAGGED, REFERENCE
from mlx_rsft.ranks import Ranks

LAGGED_STATE = "lagged"


class References:
    """Log-probabilities and hidden states of the models to compare with.

    Args:
        split: The model that is trained.
        objective: Decides which other models are needed, if any.

    Raises:
        ConfigError: If the base model is needed and cannot be had by taking an
            adapter off, or its whole head is needed and the head is trained.
    """

    def __init__(self, split: SplitModel, objective: Objective) -> None:
        self._split = split
        self._objective = objective
        self._wants_hidden = any(pull.needs_reference for pull in objective.pulls)
        self._wants_lagged = LAGGED in objective.needs
        self._base_logp: dict[bytes, np.ndarray] = {}
        self._lagged: Any = None
        self._switch: OffSwitch | None = None
        if REFERENCE in objective.needs or self._wants_hidden:
            self._switch = OffSwitch(split.model)
        if self._wants_hidden and split.head_parameters():
            raise ConfigError(
                "anchor=kl holds to the base model's head, but the head is trained.",
                where="objective.anchor",
                hint="Use anchor=k3, or leave the head and embeddings out of --keys.",
            )

    def refresh(self, step: int) -> None:
        """Take the model at hand as the lagged one, at every so many steps."""
        if self._wants_lagged and step % self._objective.refresh_every == 0:
            self._lagged = self._split.model.trainable_parameters()

    def base_logp(
        self, group: Sequence[Example], batch: Batch, trunk: TrunkStates | None = None
    ) -> mx.array | None:
        """(N,) nats under the base model; computed once per example, then kept."""
        if REFERENCE not in self._objective.needs:
            return None
        keys = [example.key for example in group]
        if any(key not in self._base_logp for key in keys):
            with self._base():
                logp = np.array(self._logp(batch, trunk))
            begin = 0
            for key, example in zip(keys, group, strict=True):
                end = begin + example.num_supervised
                self._base_logp[key] = logp[begin:end]
                begin = end
        return mx.array(np.concatenate([self._base_logp[key] for key in keys]))

    def share(self, by_rank: Sequence[Sequence[Example]], ranks: Ranks) -> None:
        """Let all ranks know what each has computed of its rows.

        So any of them can save what is kept, and go on from it as if never cut off.
        """
        if ranks.size == 1 or REFERENCE not in self._objective.needs:
            return
        counts = [sum(row.num_supervised for row in rows) for rows in by_rank]
        own = [self._base_logp[row.key] for row in by_rank[ranks.rank]]
        (whole,) = ranks.joined([mx.array(np.concatenate(own))], counts)
        rows = [row for held in by_rank for row in held]
        ends = np.cumsum([row.num_supervised for row in rows])[:-1]
        parts = np.split(np.array(whole), ends)
        for row, part in zip(rows, parts, strict=True):
            self._base_logp[row.key] = part

    def lagged_logp(
        self, batch: Batch, trunk: TrunkStates | None = None
    ) -> mx.array | None:
        """(N,) nats under the model of the last refresh."""
        if not self._wants_lagged:
            return None
        with held(self._split.model, self._lagged):
            return self._logp(batch, trunk)

    def base_hidden(
        self, batch: Batch, trunk: TrunkStates | None = None
    ) -> mx.array | None:
        """(N, D) hidden states of the base model, where an anchor needs them."""
        if not self._wants_hidden:
            return None
        with self._base():
            return shards.supervised(self._split, batch, trunk)

    def state(self) -> dict[str, mx.array]:
        """What is remembered from earlier steps, by name."""
        held: list[tuple[str, mx.array]] = (
            tree_flatten(self._lagged, f".{LAGGED_STATE}") if self._lagged else []  # pyright: ignore
        )
        if not self._base_logp:
            return dict(held)
        keys, values = b"".join(self._base_logp), list(self._base_logp.values())
        lengths = np.array([value.size for value in values], np.int32)
        return {
            **dict(held),
            "base.keys": mx.array(np.frombuffer(keys, np.uint8)),
            "base.lengths": mx.array(lengths),
            "base.logp": mx.array(np.concatenate(values)),
        }

    def restore(self, state: Mapping[str, mx.array]) -> None:
        """Remember what ``state`` has told."""
        lagged = [
            (name.removeprefix(f"{LAGGED_STATE}."), value)
            for name, value in state.items()
            if name.startswith(f"{LAGGED_STATE}.")
        ]
        self._lagged = tree_unflatten(lagged) if lagged else None
        if "base.keys" not in state:
            return
        keys = np.array(state["base.keys"]).tobytes()
        ends = np.cumsum(np.array(state["base.lengths"]))
        parts = np.split(np.array(state["base.logp"]), ends[:-1])
        names = [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
        self._base_logp = dict(zip(names, parts, strict=True))

    @contextmanager
    def _base(self) -> Generator[None]:
        assert self._switch is not None
        with self._switch.off(), without_dropout(self._split.model):
            yield

    def _logp(self, batch: Batch, trunk: TrunkStates | None) -> mx.array:
        hidden_ND = shards.supervised(self._split, batch, trunk)
        stats, _ = loss.token_stats(self._split.head, hidden_ND, batch.targets_N)
        return stats.logp


@contextmanager
def held(model: nn.Module, parameters: Any) -> Generator[None]:
    """Put other values into a model's trainable parameters, without dropout."""
    before = model.trainable_parameters()
    model.update(parameters)
    try:
        with without_dropout(model):
            yield
    finally:
        model.update(before)
