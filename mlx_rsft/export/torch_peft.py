"""transformers and PEFT as the reader of a PEFT adapter, where they are installed.

The base model is handed over in memory, in float32, under the names that the families
have in both.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_rsft.export.dense import EXACT, HALF, bare, is_exact, likeliest, normalised
from mlx_rsft.export.live import ROUNDS_EMBEDDING, Live, floats
from mlx_rsft.export.product import Product
from mlx_rsft.export.reading import Limit, Row
from mlx_rsft.models.fitted import weight

NEEDED = ("torch", "transformers", "peft")
MOST_PARAMETERS = 2_000_000_000
"""A second base model of more than 8 GB is not worth it."""


def missing(live: Live, product: Product) -> str:
    """Why PEFT cannot be asked; empty if it can."""
    del product
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    size = sum(value.size for _, value in _weights(live.model))
    if size > MOST_PARAMETERS:
        return f"the base model has {size / 1e9:.1f} billion parameters, too many twice"
    return ""


def limit(live: Live, product: Product) -> Limit:
    """PEFT computes in float32 whatever the live model does."""
    del product
    return Limit(EXACT if is_exact(live) else HALF)


def _weights(model: nn.Module) -> Iterator[tuple[str, mx.array]]:
    """The weights of a bare model by name, out of their blocks; not evaluated."""
    for path, module in model.named_modules():
        held: dict[str, Any] = dict(module)
        for key, value in held.items():
            if not isinstance(value, mx.array) or key in ("scales", "biases"):
                continue
            plain = key == "weight" and "scales" in module
            yield f"{path}.{key}", weight(module) if plain else value


class Torch:
    """A model of transformers as it is read."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, row: Row) -> np.ndarray:
        """Logits at each place of a row, ``[places, V]``."""
        import torch

        with torch.no_grad():
            found = self._model(torch.tensor([row.tokens])).logits[0]
        return found[row.start - 1 : -1].float().numpy()

    def likely(self, row: Row) -> Iterator[tuple[int, Mapping[int, float]]]:
        yield from likeliest(row, normalised(self.logits(row)))


@contextmanager
def read(live: Live, product: Product) -> Generator[Torch]:
    """The adapter on a model of transformers, put there by PEFT."""
    import peft

    with bare(live) as model, warnings.catch_warnings():
        # PEFT makes idle adapters where a name fits and the file has none.
        warnings.simplefilter("ignore")
        under = base(live, model)
        yield Torch(peft.PeftModel.from_pretrained(under, str(product.path)).eval())


def base(live: Live, model: nn.Module) -> Any:
    """The bare model in transformers, float32, rounding what mlx-lm rounds."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(live.path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    fresh: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    held = {name: torch.from_numpy(floats(value)) for name, value in _weights(model)}
    fresh.load_state_dict(held, strict=False)
    fresh.tie_weights()
    if live.model_type in ROUNDS_EMBEDDING:
        scale = fresh.model.embed_tokens.embed_scale
        scale.copy_(scale.to(torch.bfloat16).to(scale.dtype))
    return fresh
