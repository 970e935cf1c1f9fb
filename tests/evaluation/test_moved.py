from dataclasses import astuple

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import moved
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.models.trunk_store import MemoryStore
from mlx_rsft.settings import AdapterSettings


def _examples(count=6):
    rng = np.random.default_rng(0)
    return [
        Example(tuple(rng.integers(1, 250, n + 8).tolist()), ((2, 4), (5, n + 8)), "f")
        for n in range(count)
    ]


def _moved_model(size=0.3, keys=(), layers="last:2", **changes):
    model = testing.tiny_model(**changes)
    adapters.attach(model, AdapterSettings(rank=2, layers=layers, keys=keys))
    mx.random.seed(1)
    for module in model.modules():
        if "lora_b" in module:
            module.lora_b = mx.random.normal(module.lora_b.shape) * size
    return model


def _log_probabilities(model, tokens):
    logits = np.array(model(mx.array(tokens)[None])[0], np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("keys", [(), ("lm_head",)], ids=["blocks", "head"])
def test_drift_is_that_of_whole_distributions_computed_row_by_row(keys):
    untied = {"tie_word_embeddings": False}
    model, base = _moved_model(keys=keys, **untied), testing.tiny_model(**untied)
    rows = moved.compare(SplitModel(model), _examples())
    for example, row in zip(_examples(), rows, strict=True):
        here = [n for a, b in example.spans for n in range(a, b)]
        now = _log_probabilities(model, example.tokens)
        before = _log_probabilities(base, example.tokens)
        kl = sum((np.exp(before[n - 1]) * (before - now)[n - 1]).sum() for n in here)
        fallen = np.array([(before - now)[n - 1, example.tokens[n]] for n in here])
        assert row.tokens == len(here)
        assert row.kl == pytest.approx(kl, rel=1e-3)
        assert row.kl > 1e-3
        assert row.rise == pytest.approx(fallen.sum(), abs=1e-4)
        assert row.k3 == pytest.approx((np.exp(fallen) - 1 - fallen).sum(), rel=1e-2)


def test_an_adapter_that_does_nothing_has_not_moved():
    for row in moved.compare(SplitModel(_moved_model(0.0)), _examples()):
        assert (row.kl, row.k3, row.rise) == pytest.approx((0, 0, 0), abs=1e-4)


def test_kept_states_of_frozen_blocks_change_nothing():
    model = _moved_model(layers="last:1")
    split, examples = SplitModel(model), _examples()
    depth = adapters.first_trained_block(model)
    trunk = Trunk(split, depth, MemoryStore(10**7))
    kept = moved.compare(split, examples, trunk)
    assert trunk.stats.misses == len(examples)
    for row, plain in zip(kept, moved.compare(split, examples), strict=True):
        assert row.kl > 1e-4
        assert astuple(row) == pytest.approx(astuple(plain), rel=1e-3, abs=1e-5)


def test_the_adapter_is_back_on_afterwards():
    split = SplitModel(_moved_model())
    before = split.hidden(mx.arange(8)[None])
    moved.compare(split, _examples())
    assert mx.array_equal(before, split.hidden(mx.arange(8)[None]))


def test_a_model_without_an_adapter_has_nothing_to_compare_with():
    with pytest.raises(ConfigError, match="Pass --adapter"):
        moved.compare(SplitModel(testing.tiny_model()), _examples())
