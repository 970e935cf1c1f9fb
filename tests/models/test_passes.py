import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_rsft import testing
from mlx_rsft.models import adapters, passes
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.settings import AdapterSettings

TOKENS = mx.arange(3 * 19).reshape(3, 19) * 11 % 101
ROWS = mx.array([0, 17, 18, 19, 40, 56])
SLOPE = mx.cos(mx.arange(6 * 24)).reshape(6, 24)


def _split(**chosen):
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(**{"layers": "last:2", **chosen}))
    for name, value in tree_flatten(model.trainable_parameters()):
        moved = value + 0.05 * mx.random.normal(value.shape)
        model.load_weights([(name, moved)], strict=False)
    model.train()
    return SplitModel(model)


def _plain(split, trunk=None):
    parameters = dict(tree_flatten(split.model.parameters()))
    return passes.laid_out(split, parameters, TOKENS, ROWS, SLOPE, trunk)


def _assert_same(found, wanted, rtol=1e-5):
    np.testing.assert_allclose(np.array(found[0]), np.array(wanted[0]), rtol, 1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, grad in wanted[1].items():
        largest = mx.abs(grad).max().item()
        assert largest > 0, name
        near = {"atol": 1e-5 * largest, "rtol": rtol, "err_msg": name}
        np.testing.assert_allclose(np.array(found[1][name]), np.array(grad), **near)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
@pytest.mark.parametrize("depth", [None, 1, 2])
def test_compiled_passes_give_what_plain_ones_give(method, depth):
    split = _split(method=method, layers="last:1")
    trunk = split.trunk(TOKENS, depth) if depth else None
    found = Passes(split)(TOKENS, ROWS, SLOPE, trunk)
    _assert_same(found, _plain(split, trunk))


def test_what_changes_between_two_calls_is_seen():
    """A compiled function keeps nothing of the model but how it is made."""
    split = _split()
    run = Passes(split)
    run(TOKENS, ROWS, SLOPE, None)
    frozen = split.model.model.layers[0].mlp.up_proj
    frozen.weight = frozen.weight * 1.5
    _assert_same(run(TOKENS, ROWS, SLOPE, None), _plain(split))
    split.model.update(tree_map(lambda x: x * 1.1, split.model.trainable_parameters()))
    _assert_same(run(TOKENS, ROWS, SLOPE, None), _plain(split))
    split.model.model.layers[-1].freeze()
    fewer = run(TOKENS, ROWS, SLOPE, None)
    assert not any(".2." in name for name in fewer[1])
    _assert_same(fewer, _plain(split))
    below = TrunkStates(1, mx.random.normal((3, 19, 24)))
    _assert_same(run(TOKENS, ROWS, SLOPE, below), _plain(split, below))


def test_the_slope_may_be_filled_in_after_the_hidden_states_are_known():
    split = _split()
    blank = mx.zeros(SLOPE.shape)
    mx.eval(blank)
    hidden, grads = Passes(split)(TOKENS, ROWS, blank, None)
    mx.eval(hidden)
    np.array(blank, copy=False)[...] = np.array(SLOPE)
    _assert_same((hidden, grads), _plain(split))


def test_dropout_is_drawn_anew_at_each_call_and_alike_from_one_seed():
    split = _split(dropout=0.5)
    run = Passes(split)
    mx.random.seed(5)
    one, other = (np.array(run(TOKENS, ROWS, SLOPE, None)[0]) for _ in range(2))
    assert not np.allclose(one, other)
    mx.random.seed(5)
    again = np.array(run(TOKENS, ROWS, SLOPE, None)[0])
    np.testing.assert_array_equal(again, one)
    mx.random.seed(5)
    np.testing.assert_allclose(np.array(_plain(split)[0]), one, rtol=1e-5, atol=1e-5)


def test_compiling_keeps_no_more_for_the_backward_pass():
    split = _split()
    tokens = mx.arange(8 * 256).reshape(8, 256) % 200
    rows = mx.arange(2048)
    slope = mx.ones((2048, 24))
    mx.eval(tokens, rows, slope, split.model.parameters())
    run = Passes(split)
    parameters = dict(tree_flatten(split.model.parameters()))

    def held(lay_out):
        mx.synchronize()
        before = mx.get_active_memory()
        hidden, grads = lay_out()
        mx.eval(hidden)
        mx.synchronize()
        taken = mx.get_active_memory() - before
        del grads
        return taken

    plain = held(lambda: passes.laid_out(split, parameters, tokens, rows, slope, None))
    for _ in range(2):
        assert held(lambda: run(tokens, rows, slope, None)) < 1.1 * plain
