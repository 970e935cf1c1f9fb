import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import testing
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings
from mlx_rsft.training.references import References

ROWS = [
    Example((5, 6, 7, 8, 9), ((2, 5),), "f:1"),
    Example((11, 12, 13), ((1, 3),), "f:2"),
]
WAYS = {
    "lora": {},
    "dora": {"method": "dora"},
    "embeddings": {"keys": ("model.embed_tokens", "mlp.up_proj")},
    "dora-embeddings": {"method": "dora", "keys": ("model.embed_tokens",)},
    "dropout": {"dropout": 0.5},
}


def _moved(**settings):
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(layers="last:2", **settings))
    flat = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(n, p + mx.random.normal(p.shape)) for n, p in flat], strict=False
    )
    split = SplitModel(model)
    model.train()
    return split


@pytest.mark.parametrize("way", WAYS)
def test_the_base_model_is_the_one_that_was_never_trained(way):
    split, bare = _moved(**WAYS[way]), testing.tiny_model()
    batch = collate(ROWS)
    found = References(split, build({"name": "prift"})).base_logp(ROWS, batch)
    logits = bare(batch.tokens_BT).reshape(-1, testing.VOCABULARY)
    logp = logits - mx.logsumexp(logits, -1, keepdims=True)
    wanted = logp[batch.rows_N, batch.targets_N]
    # Another order of float32 sums over the vocabulary.
    np.testing.assert_allclose(np.array(found), np.array(wanted), atol=1e-5)
    assert split.model.training
    assert split.model.model.layers[2].mlp.training


def test_an_anchor_on_the_whole_distribution_needs_the_base_models_head():
    split = _moved(keys=("model.embed_tokens",))
    References(split, build({"name": "dft:anchor=k3"}))
    with pytest.raises(ConfigError, match="head is trained"):
        References(split, build({"name": "dft:anchor=kl"}))
    References(_moved(), build({"name": "dft:anchor=kl"}))


def test_full_fine_tuning_has_no_base_model_at_hand():
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(method="full", layers="last:1"))
    split = SplitModel(model)
    References(split, build({"name": "dft"}))
    References(split, build({"name": "psft"})).refresh(0)
    for name in ("prift", "dft:anchor=kl", "dft:anchor=k3"):
        with pytest.raises(ConfigError, match="own weights"):
            References(split, build({"name": name}))


def test_what_is_remembered_of_the_base_model_is_taken_over_row_by_row():
    split, objective, batch = _moved(), build({"name": "prift"}), collate(ROWS)
    first, second = References(split, objective), References(split, objective)
    logp = first.base_logp(ROWS, batch)
    state = first.state()
    second.restore({**state, "base.logp": state["base.logp"] + 1})
    np.testing.assert_array_equal(second.base_logp(ROWS, batch), np.array(logp + 1))
    swapped = [ROWS[1], ROWS[0]]
    found = np.array(second.base_logp(swapped, collate(swapped)))
    np.testing.assert_array_equal(found, np.roll(np.array(logp + 1), 2))
