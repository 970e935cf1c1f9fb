"""What other models think of the tokens: the base model, and the model some steps ago.

Both are the model at hand with other values in its adapter, so neither needs a second
copy of the weights. The base model is the one whose ``lora_b`` is zero.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path

from mlx_rsft import loss
from mlx_rsft.data.conversation import Batch, Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Objective
from mlx_rsft.objectives.tokens import LAGGED, REFERENCE


class References:
    """Log-probabilities and hidden states under other values of the adapter.

    Args:
        split: The model that is trained.
        objective: Decides which other models are needed, if any.

    Raises:
        ConfigError: If the base model is needed and no adapter can be switched off.
    """

    def __init__(self, split: SplitModel, objective: Objective) -> None:
        self._split = split
        self._objective = objective
        self._wants_base = REFERENCE in objective.needs or any(
            pull.needs_reference for pull in objective.pulls
        )
        self._wants_lagged = LAGGED in objective.needs
        self._base_logp: dict[bytes, np.ndarray] = {}
        self._lagged: Any = None
        if self._wants_base:
            _check_adapter(split.model)

    def refresh(self, step: int) -> None:
        """Take the model at hand as the lagged one, at every so many steps."""
        if self._wants_lagged and step % self._objective.refresh_every == 0:
            self._lagged = self._split.model.trainable_parameters()

    def base_logp(self, group: Sequence[Example], batch: Batch) -> mx.array | None:
        """(N,) nats under the base model; computed once per example, then kept."""
        if REFERENCE not in self._objective.needs:
            return None
        keys = [example.key for example in group]
        if any(key not in self._base_logp for key in keys):
            with held(self._split.model, _without_adapter(self._split.model)):
                logp = np.array(self._logp(batch))
            begin = 0
            for key, example in zip(keys, group, strict=True):
                end = begin + example.num_supervised
                self._base_logp[key] = logp[begin:end]
                begin = end
        return mx.array(np.concatenate([self._base_logp[key] for key in keys]))

    def lagged_logp(self, batch: Batch) -> mx.array | None:
        """(N,) nats under the model of the last refresh."""
        if not self._wants_lagged:
            return None
        with held(self._split.model, self._lagged):
            return self._logp(batch)

    def base_hidden(self, batch: Batch) -> mx.array | None:
        """(N, D) hidden states of the base model, where an anchor needs them."""
        if not any(pull.needs_reference for pull in self._objective.pulls):
            return None
        with held(self._split.model, _without_adapter(self._split.model)):
            hidden_ND = self._split.supervised(batch.tokens_BT, batch.rows_N)
            mx.eval(hidden_ND)
            return hidden_ND

    def _logp(self, batch: Batch) -> mx.array:
        hidden_ND = self._split.supervised(batch.tokens_BT, batch.rows_N)
        stats, _ = loss.token_stats(self._split.head, hidden_ND, batch.targets_N)
        mx.eval(stats.logp)
        return stats.logp


@contextmanager
def held(model: nn.Module, parameters: Any) -> Generator[None]:
    """Put other values into a model's trainable parameters, without dropout."""
    before, was_training = model.trainable_parameters(), model.training
    model.update(parameters)
    model.eval()
    try:
        yield
    finally:
        model.update(before)
        model.train(was_training)


def _without_adapter(model: nn.Module) -> Any:
    def silent(path: str, value: mx.array) -> mx.array:
        return mx.zeros_like(value) if path.endswith("lora_b") else value

    return tree_map_with_path(silent, model.trainable_parameters())


def _check_adapter(model: nn.Module) -> None:
    leaves: list[tuple[str, Any]] = tree_flatten(model.trainable_parameters())  # pyright: ignore
    kinds = {name.rsplit(".", 1)[-1] for name, _ in leaves}
    if not kinds <= {"lora_a", "lora_b"}:
        raise ConfigError(
            "The objective compares with the base model, which is no longer at hand "
            "when its own weights are trained.",
            where="objective",
            hint="Train a LoRA adapter, or leave the anchor and base-model objectives.",
        )
