import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import lanes, shards, testing
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.loss import Recipe
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Known, build
from mlx_rsft.training.gradient import Piece, gradient

DEPTH = 2
LENGTHS = (17, 9, 31, 12, 5)


@pytest.fixture(scope="module")
def split():
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = testing.tiny_model(num_hidden_layers=4)
    linear_to_lora_layers(model, 2, {"rank": 2, "scale": 4.0, "dropout": 0.0})
    for name, value in tree_flatten(model.trainable_parameters()):
        drawn = 0.1 * mx.random.normal(value.shape)
        model.load_weights([(name, drawn)], strict=False)
    return SplitModel(model)


def _batch(rows=5):
    rng = np.random.default_rng(rows)
    examples = []
    for length in LENGTHS[:rows]:
        tokens = tuple(rng.integers(3, 90, length).tolist())
        first = int(rng.integers(1, length - 2))
        spans = ((first, first + 1), (first + 2, length))
        examples.append(Example(tokens, spans, "f:1"))
    return collate(examples)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_the_batch_row_by_row(count, rows, monkeypatch):
    monkeypatch.setattr(lanes, "count", lambda: count)
    batch = _batch(rows)
    values = mx.random.normal((*batch.tokens_BT.shape, 4))
    cut = shards.cut(batch, TrunkStates(DEPTH, values))
    sizes = [shard.tokens_BT.shape[0] for shard in cut]
    assert len(sizes) == min(count, rows)
    assert max(sizes) - min(sizes) <= 1
    assert mx.array_equal(
        mx.concatenate([s.tokens_BT for s in cut]), batch.tokens_BT
    ).item()
    states = mx.concatenate([s.trunk.values_BTD for s in cut])
    assert mx.array_equal(states, values).item()
    flat = np.concatenate(
        [np.array(s.tokens_BT).ravel()[np.array(s.rows_N) + 1] for s in cut]
    )
    np.testing.assert_array_equal(flat, np.array(batch.targets_N))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_hidden_states_of_shards_are_those_of_the_batch(split, count, monkeypatch):
    batch = _batch()
    monkeypatch.setattr(lanes, "count", lambda: 1)
    whole = shards.supervised(split, batch)
    trunk = split.trunk(batch.tokens_BT, DEPTH)
    monkeypatch.setattr(lanes, "count", lambda: count)
    assert mx.allclose(shards.supervised(split, batch), whole, atol=2e-6).item()
    upon = shards.supervised(split, batch, trunk)
    assert mx.allclose(upon, whole, atol=2e-6).item()


@pytest.mark.parametrize("text", ["sft", "dft", "power:alpha=0.5", "eaft"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_gradient_of_shards_is_that_of_the_batch(split, text, count, monkeypatch):
    batch, objective = _batch(), build({"name": text})
    recipe = Recipe(objective.weight, objective.head_facts, objective.pulls)

    def found(at_once):
        monkeypatch.setattr(lanes, "count", lambda: at_once)
        sums, grads = gradient(Passes(split), [Piece(batch, Known())], recipe)
        return sums.totals(), dict(tree_flatten(grads))

    (one, whole), (other, parts) = found(1), found(count)
    np.testing.assert_allclose(one[:6], other[:6], rtol=1e-5)
    assert one.histogram == other.histogram
    assert whole.keys() == parts.keys()
    largest = max(np.abs(np.array(grad)).max() for grad in whole.values())
    for name, grad in whole.items():
        np.testing.assert_allclose(parts[name], grad, atol=1e-5 * largest, rtol=1e-4)
