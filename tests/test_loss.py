import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import loss
from mlx_rsft.objectives import TokenStats, build

SFT, DFT = build({"name": "sft"}).weight, build({"name": "dft"}).weight
N, V = 5, 11


def _case(dtype=np.float64, scale=2.0):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, V)) * scale).astype(dtype), rng.integers(0, V, N)


def _objective(weigh, targets):
    def value(logits):
        return loss.dense(lambda z: z, logits, mx.array(targets), weigh).objective

    return value


def _gradient_error(value, weigh, logits, targets):
    """Largest distance between a gradient and finite differences of its held loss."""
    found = np.array(mx.grad(value)(mx.array(logits, mx.float32)))
    held = np.array(weigh(TokenStats(_logp(logits, targets))), np.float64)
    step, worst = 1e-6, 0.0
    for n in range(N):
        for v in range(V):
            up, down = logits.copy(), logits.copy()
            up[n, v] += step
            down[n, v] -= step
            slope = -(held * (_logp64(up, targets) - _logp64(down, targets))).sum() / (
                2 * step
            )
            worst = max(worst, abs(slope - found[n, v]))
    return worst


def _logp64(logits, targets):
    top = logits.max(1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return logits[np.arange(len(targets)), targets] - lse


def _logp(logits, targets):
    return mx.array(_logp64(logits, targets), mx.float32)


@pytest.mark.parametrize("weigh", [SFT, DFT])
def test_the_gradient_agrees_with_finite_differences_in_float32(weigh):
    logits, targets = _case()
    worst = _gradient_error(_objective(weigh, targets), weigh, logits, targets)
    # float32 softmax: 2 ** -24 relative, times a handful of operations.
    assert worst < 2e-6


def test_a_weight_that_is_not_held_fails_the_same_test():
    logits, targets = _case()

    def leaking(z):
        logp = loss.log_probability(z, mx.array(targets))
        return -(mx.exp(logp) * logp).sum()

    assert _gradient_error(leaking, DFT, logits, targets) > 1e-2


def test_an_objective_cannot_leak_its_gradient_into_the_loss():
    logits, targets = _case(np.float32)

    def unheld(stats):
        return mx.exp(stats.logp)

    wanted = mx.grad(_objective(DFT, targets))(mx.array(logits))
    found = mx.grad(_objective(unheld, targets))(mx.array(logits))
    assert mx.array_equal(wanted, found).item()


def test_rare_targets_are_pushed_up_by_dft():
    # Below p = 1/e the loss that is not held pushes them down.
    logits = mx.array([[0.0, 3.0]])
    slope = mx.grad(_objective(DFT, [0]))(logits)
    assert slope[0, 0].item() < 0


def test_the_sums_are_what_they_say():
    logits, targets = _case()
    sums = loss.dense(lambda z: z, mx.array(logits, mx.float32), mx.array(targets), DFT)
    logp = _logp64(logits, targets)
    p = np.exp(logp)
    wanted = [-(p * logp).sum(), -logp.sum(), p.sum(), p.sum(), (p * p).sum(), N]
    np.testing.assert_allclose([float(s.item()) for s in sums], wanted, rtol=1e-5)


def test_low_precision_logits_are_summed_in_float32():
    logits, targets = _case(scale=20.0)
    low = mx.array(logits).astype(mx.bfloat16)
    found = loss.log_probability(low, mx.array(targets))
    assert found.dtype == mx.float32
    wanted = _logp64(np.array(low.astype(mx.float32), np.float64), targets)
    np.testing.assert_allclose(np.array(found), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_huge_logits_give_finite_losses_and_gradients(scale):
    logits, targets = _case(np.float32, scale)
    value, slope = mx.value_and_grad(_objective(DFT, targets))(mx.array(logits))
    assert np.isfinite(value.item())
    assert np.isfinite(np.array(slope)).all()


def test_no_supervised_token_gives_zero_and_a_zero_gradient():
    hidden = mx.ones((0, 4))
    nothing = mx.zeros((0,), mx.int32)
    sums = loss.dense(lambda h: h, hidden, nothing, SFT)
    assert [s.item() for s in sums] == [0.0] * 6

    def through(source):
        rows = source[mx.zeros((0,), mx.int32)]
        return loss.dense(lambda h: h, rows, nothing, SFT).objective

    assert np.array(mx.grad(through)(mx.ones((3, 4)))).tolist() == [[0.0] * 4] * 3
