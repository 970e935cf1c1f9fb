import importlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_rsft import testing
from mlx_rsft.models import cpu_kernels

# float32 sums in another order, over values of the order of 1.
ROUNDING = {"rtol": 2e-5, "atol": 2e-5}


def _normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape), mx.float32)


def _assert_same_with_gradients(ours, stock, *inputs):
    slope = _normal(*stock(*inputs).shape, seed=9)
    one, other = (mx.vjp(f, list(inputs), [slope]) for f in (ours, stock))
    for mine, wanted in zip(one[0] + one[1], other[0] + other[1], strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(wanted), **ROUNDING)


def test_gates_are_those_of_mlx_with_their_gradients():
    from mlx_lm.models.activations import swiglu

    gate, x = 4 * _normal(7, 33), _normal(7, 33, seed=1)
    gate[0, :4] = mx.array([-100.0, -30.0, 30.0, 100.0])
    _assert_same_with_gradients(cpu_kernels.swiglu, swiglu, gate, x)
    _assert_same_with_gradients(cpu_kernels.gelu_approx, nn.gelu_approx, gate)


@pytest.mark.parametrize("length", [1, 9, 31, 300, 515])
@pytest.mark.parametrize("heads", [(6, 2), (3, 1), (2, 2)])
def test_causal_attention_is_that_of_mlx_with_its_gradients(length, heads):
    queries, keys = heads
    inputs = [
        3 * _normal(5, queries, length, 8),
        _normal(5, keys, length, 8, seed=1),
        _normal(5, keys, length, 8, seed=2),
    ]

    def ours(q, k, v):
        return cpu_kernels.causal_attention(q, k, v, 0.3)

    def stock(q, k, v):
        # By hand, because mlx's own has no gradient for few queries.
        k, v = (mx.repeat(part, queries // keys, axis=1) for part in (k, v))
        scores = 0.3 * q @ k.swapaxes(-1, -2)
        future = mx.triu(mx.full((length, length), -mx.inf), k=1)
        return mx.softmax(scores + future, axis=-1) @ v

    _assert_same_with_gradients(ours, stock, *inputs)


def test_what_comes_later_is_never_seen():
    q, k, v = (_normal(1, 2, 300, 4, seed=n) for n in range(3))
    before = cpu_kernels.causal_attention(q, k, v, 1.0)
    k[:, :, 280:], v[:, :, 280:] = 1e6, 1e6
    after = cpu_kernels.causal_attention(q, k, v, 1.0)
    np.testing.assert_array_equal(
        np.array(before)[:, :, :280], np.array(after)[:, :, :280]
    )


EXCHANGED = {
    "llama": {"scaled_dot_product_attention", "swiglu"},
    "qwen3": {"scaled_dot_product_attention", "swiglu"},
    "gemma3_text": {"scaled_dot_product_attention", "nn"},
    "phi3": {"scaled_dot_product_attention", "swiglu"},
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_mlx_lm_still_calls_them_by_these_names(name):
    module = importlib.import_module(f"mlx_lm.models.{name}")
    stand_ins = cpu_kernels._stand_ins()
    for known in EXCHANGED[name]:
        assert getattr(module, known) is stand_ins[known][0]


def test_they_stand_in_while_a_block_runs_and_not_after_an_error():
    from mlx_lm.models import llama

    model, stock = testing.tiny_model(), llama.swiglu
    with cpu_kernels.exchanged(model):
        assert llama.swiglu is cpu_kernels.swiglu
    with pytest.raises(RuntimeError), cpu_kernels.exchanged(model):
        raise RuntimeError
    assert llama.swiglu is stock


def test_on_other_backends_nothing_is_exchanged(monkeypatch):
    from mlx_lm.models import llama

    model, stock = testing.tiny_model(), llama.swiglu
    monkeypatch.setattr(cpu_kernels.machine, "backend", lambda: "metal")
    with cpu_kernels.exchanged(model):
        assert llama.swiglu is stock


def test_a_model_computes_the_same_with_them_and_keeps_its_masks():
    model = testing.tiny_model()
    tokens = mx.arange(80).reshape(2, 40) % 250
    plain = np.array(model(tokens))
    with cpu_kernels.exchanged(model):
        np.testing.assert_allclose(np.array(model(tokens)), plain, **ROUNDING)
