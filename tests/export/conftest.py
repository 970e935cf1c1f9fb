"""Live adapters of tiny models, strong enough that a mistake shows."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rsft import testing
from mlx_rsft.export.live import Live
from mlx_rsft.models import adapters
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.settings import AdapterSettings


def strengthen(model, size=0.3):
    """Give an adapter an effect that no rounding hides."""
    mx.random.seed(1)
    strong = [
        (name, value * (1 + size * mx.random.uniform(shape=value.shape)))
        if name.endswith(".m")
        else (name, size * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.trainable_parameters())
        if not name.endswith("lora_a")
    ]
    model.update(tree_unflatten(strong))
    mx.eval(model.parameters())


def as_live(model, tokenizer=None, path=Path(), source="tiny", size=0.3, **settings):
    """A model with a strong adapter put on it."""
    config = adapters.attach(model, AdapterSettings(**settings))
    strengthen(model, size)
    model.eval()
    loaded = LoadedModel(model, tokenizer, path, source, "float32", ())
    return Live(loaded, config, "owner/name")


@pytest.fixture
def tiny_live(tiny_folder):
    """Makes a live adapter of the tiny model."""

    def make(*, changes=None, **settings):
        model = testing.tiny_model(**(changes or {}))
        chosen = {"rank": 4, "layers": "last:2", **settings}
        return as_live(model, testing.byte_tokenizer(), tiny_folder, **chosen)

    return make


@pytest.fixture
def live_of():
    return as_live
