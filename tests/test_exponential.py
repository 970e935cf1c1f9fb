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


def _softmax(values):
    made = exponential.softmax(values)
    return np.array(made.raised / made.total, np.float64)


def test_softmax_agrees_with_float64_and_adds_up_to_one():
    values = np.random.default_rng(0).normal(size=(9, 1001)) * 20
    found = _softmax(mx.array(values, mx.float32))
    shifted = np.exp(values - values.max(-1, keepdims=True))
    np.testing.assert_allclose(
        found, shifted / shifted.sum(-1, keepdims=True), rtol=1e-4, atol=1e-12
    )
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    lse = exponential.softmax(mx.array(values, mx.float32)).lse[:, 0]
    wanted = np.log(shifted.sum(-1)) + values.max(-1)
    np.testing.assert_allclose(np.array(lse), wanted, rtol=1e-6)


# Even blocks, none that are even, and Gemma's own.
@pytest.mark.parametrize("size", [3, 1024, 1031, 49_157, 262_144])
def test_sums_over_a_vocabulary_agree_with_float64(size):
    values = (4 * np.random.default_rng(1).normal(size=(2, size))).astype(np.float32)
    wide = values.astype(np.float64)
    top = wide.max(-1)
    wanted = top + np.log(np.exp(wide - top[:, None]).sum(-1))
    logits = mx.array(values)
    positive = mx.abs(logits)
    found = [
        (exponential.logsumexp(logits)[:, 0], wanted),
        (exponential.softmax(logits).lse[:, 0], wanted),
        (exponential.total(positive), np.abs(wide).sum(-1)),
    ]
    for ours, exact in found:
        np.testing.assert_allclose(np.array(ours), exact, rtol=1e-6)
    slope = np.array(mx.grad(lambda z: exponential.logsumexp(z).sum())(logits))
    np.testing.assert_allclose(slope, np.exp(wide - wanted[:, None]), rtol=5e-6)
    np.testing.assert_allclose(slope.sum(-1, dtype=np.float64), 1, rtol=3e-6)


def test_what_is_impossible_has_no_share_and_no_gradient():
    values = mx.concatenate([mx.zeros((1, 9)), mx.full((1, 9000), -mx.inf)], axis=-1)
    assert exponential.logsumexp(values).item() == pytest.approx(np.log(9))
    slope = mx.grad(lambda z: exponential.logsumexp(z).sum())(values)
    np.testing.assert_allclose(np.array(slope)[0, :10], [*[1 / 9] * 9, 0], rtol=1e-6)


def test_sigmoid_agrees_with_float64_out_to_its_ends():
    values = np.concatenate([np.linspace(-80, 80, 4001), [-1e4, 1e4]])
    found = np.array(exponential.sigmoid(mx.array(values, mx.float32)), np.float64)
    wanted = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-37)


def test_what_is_not_a_number_stays_so():
    bad = mx.array([float("nan"), 1.0])
    assert mx.isnan(exponential.exp(bad))[0].item()
    assert np.isnan(_softmax(bad[None])).all()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_types_are_left_to_mlx(dtype):
    values = mx.array([[-1.0, 2.0, 0.5]], dtype)
    assert not exponential.applies(values)
    made = exponential.softmax(values)
    assert mx.array_equal(made.raised, mx.softmax(values, axis=-1)).item()
    assert made.lse.item() == pytest.approx(mx.logsumexp(values).item(), rel=1e-2)


def test_other_backends_are_left_to_mlx(monkeypatch):
    monkeypatch.setattr(exponential.machine, "backend", lambda: "metal")
    assert not exponential.applies(mx.array([1.0]))
