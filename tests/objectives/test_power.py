import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft.objectives import TokenStats, build

LOGP = TokenStats(mx.array([-0.01, -1.0, -5.0, -30.0]))


def _weights(text):
    return np.array(build({"name": text}).weight(LOGP))


def test_alpha_0_is_sft_and_alpha_1_is_dft():
    assert (_weights("power:alpha=0") == _weights("sft")).all()
    assert (_weights("power:alpha=1") == _weights("dft")).all()
    assert (_weights("sft") == 1).all()
    # mlx computes exp in float32 to about 1e-6 relative for large arguments.
    np.testing.assert_allclose(_weights("dft"), np.exp(np.array(LOGP.logp)), rtol=1e-5)


def test_a_small_alpha_is_close_to_sft():
    np.testing.assert_allclose(_weights("power:alpha=1e-6"), _weights("sft"), atol=1e-4)


def test_a_floor_holds_up_unlikely_tokens_and_leaves_likely_ones_alone():
    with_floor, without = _weights("dft:floor=0.1"), _weights("dft")
    assert with_floor.tolist() == pytest.approx([*without[:2], 0.1, 0.1])
    assert (_weights("dft:floor=0") == without).all()
