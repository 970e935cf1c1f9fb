import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import exponential

# One unit in the last place of float32.
ROUNDING = 2.5e-7


def test_exp_agrees_with_float64_over_the_whole_range():
    values = np.linspace(-87, 88, 100_001).astype(np.float32)
    found = np.array(exponential.exp(mx.array(values)), np.float64)
    wanted = np.exp(values.astype(np.float64))
    # The exponent itself is rounded: 88 nats times one unit in the last place.
    np.testing.assert_allclose(found, wanted, rtol=88 * 1.2e-7)
    near = np.abs(values) < 1
    np.testing.assert_allclose(found[near], wanted[near], rtol=ROUNDING)


def test_far_below_zero_there_is_next_to_nothing():
    found = np.array(exponential.exp(mx.array([-88.0, -1e4, -1e30, -np.inf])))
    assert (found >= 0).all()
    assert (found < 1e-37).all()


def test_softmax_agrees_with_float64_and_adds_up_to_one():
    values = np.random.default_rng(0).normal(size=(9, 1001)) * 20
    found = np.array(exponential.softmax(mx.array(values, mx.float32)), np.float64)
    shifted = np.exp(values - values.max(-1, keepdims=True))
    np.testing.assert_allclose(
        found, shifted / shifted.sum(-1, keepdims=True), rtol=1e-4, atol=1e-12
    )
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


def test_sigmoid_agrees_with_float64_out_to_its_ends():
    values = np.concatenate([np.linspace(-80, 80, 4001), [-1e4, 1e4]])
    found = np.array(exponential.sigmoid(mx.array(values, mx.float32)), np.float64)
    wanted = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-37)


def test_what_is_not_a_number_stays_so():
    bad = mx.array([float("nan"), 1.0])
    assert mx.isnan(exponential.exp(bad))[0].item()
    assert mx.isnan(exponential.softmax(bad[None])).all().item()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_types_are_left_to_mlx(dtype):
    values = mx.array([[-1.0, 2.0, 0.5]], dtype)
    assert not exponential.applies(values)
    assert mx.array_equal(
        exponential.softmax(values), mx.softmax(values, axis=-1)
    ).item()


def test_other_backends_are_left_to_mlx(monkeypatch):
    monkeypatch.setattr(exponential.machine, "backend", lambda: "metal")
    assert not exponential.applies(mx.array([1.0]))
