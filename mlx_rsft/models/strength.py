"""How strongly an adapter acts: off, as trained, or anything between and beyond."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.errors import ConfigError
from mlx_rsft.models import fitted


class Strength:
    """The dial of the adapter on a model.

    At 0 the adapter's layers are taken out, so that the base computes to the bit; at 1
    every layer has the very scale that was saved with it. Between them a LoRA branch is
    multiplied, which moves each weight on the straight line from base to adapter.

    Args:
        model: With a low-rank adapter on it.

    Attributes:
        weight: Where the dial stands.

    Raises:
        ConfigError: If there is no low-rank adapter on the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._places = fitted.places(model)
        if not self._places:
            raise ConfigError(
                "There is no low-rank adapter on the model, so nothing has a strength.",
                hint="Pass --adapter with a LoRA or DoRA; full fine-tuning has replaced "
                "the weights themselves.",
            )
        self._layers: list[Any] = [place.module for place in self._places]
        self._scales: list[float] = [layer.scale for layer in self._layers]
        self.weight = 1.0

    def set(self, weight: float) -> None:
        """Turn the dial.

        Args:
            weight: Multiplier of the adapter, no unit; 0 is the base model.

        Raises:
            ConfigError: If it is no number, or stands between base and a DoRA, whose
                magnitudes would make of a weaker direction something that is neither.
        """
        if not math.isfinite(weight):
            raise ConfigError(f"The strength {weight} is no number.")
        if weight not in (0, 1):
            self._refuse_dora()
        for layer, scale in zip(self._layers, self._scales, strict=True):
            layer.scale = scale if weight == 1 else scale * weight
        for place in self._places:
            place.parent[place.key] = place.module if weight else place.bare
        self.weight = float(weight)

    def _refuse_dora(self) -> None:
        for place in self._places:
            if "m" in place.module:
                raise ConfigError(
                    f"{place.path} is a DoRA layer, which is either on or off: its "
                    "magnitude belongs to the full direction.",
                    hint="Choose 0 or 1, or train a LoRA.",
                )

    def change(self, tokens: mx.array) -> float:
        """The largest difference the adapter makes to a logit of these tokens, (B, T).

        The dial stands where it stood afterwards.
        """
        stood = self.weight
        base, adapted = self._logits(tokens, 0), self._logits(tokens, 1)
        self.set(stood)
        largest: Any = mx.abs(base - adapted).max().item()
        return float(largest)

    def _logits(self, tokens: mx.array, weight: float) -> mx.array:
        self.set(weight)
        logits = self._model(tokens)
        mx.eval(logits)  # before the dial is turned on
        return logits
