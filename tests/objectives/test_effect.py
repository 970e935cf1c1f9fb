import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft.objectives import Known, TokenStats, build
from mlx_rsft.objectives.effect import bins, effect, steps_to_learn


def _stats(logits_NV, targets, **known):
    p = np.exp(logits_NV) / np.exp(logits_NV).sum(axis=1, keepdims=True)
    chosen = p[np.arange(len(targets)), targets]
    stats = TokenStats(
        mx.array(np.log(chosen).astype(np.float32)),
        collision=mx.array((p * p).sum(axis=1).astype(np.float32)),
        known=Known(**known),
    )
    return stats, p


@pytest.mark.parametrize("name", ["sft", "dft", "power:alpha=0.5", "dft:floor=0.1"])
def test_the_norm_is_that_of_the_gradient_on_the_logits(name):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 7)
    stats, p = _stats(rng.normal(size=(7, 5)) * 2, targets)
    found = effect(build({"name": name}), stats)
    gradient = found.weight[:, None] * (p - np.eye(5)[targets])
    # float32 facts, and a difference of squares near 1
    np.testing.assert_allclose(found.norm, np.linalg.norm(gradient, axis=1), rtol=1e-4)


def test_shares_and_sample_size_are_those_worked_out_by_hand():
    # Two words: the norm of (softmax - onehot) is sqrt(2) (1 - p).
    logits = np.log([[0.9, 0.1], [0.5, 0.5], [0.05, 0.95]])
    stats, _ = _stats(logits, np.zeros(3, int))
    plain, dft = (effect(build({"name": name}), stats) for name in ("sft", "dft"))
    groups = np.arange(3)
    np.testing.assert_allclose(
        plain.share(groups, 3), np.array([10, 50, 95]) / 155, 1e-5
    )
    pushes = np.array([0.09, 0.25, 0.0475])
    np.testing.assert_allclose(dft.share(groups, 3), pushes / pushes.sum(), rtol=1e-5)
    assert (plain.trained, plain.ess) == (1, 1)
    assert dft.trained == pytest.approx(2 / 3)
    ess = (0.9 + 0.5 + 0.05) ** 2 / (0.81 + 0.25 + 0.0025) / 3
    assert dft.ess == pytest.approx(ess, rel=1e-5)
    assert effect(build({"name": "dft:floor=0.1"}), stats).trained == 1


def test_exempt_tokens_and_row_weights_count_as_in_training():
    logits = np.log([[0.5, 0.5], [0.5, 0.5]])
    stats, _ = _stats(
        logits,
        np.zeros(2, int),
        plain=mx.array([True, False]),
        scale=mx.array([1.0, 4.0]),
    )
    found = effect(build({"name": "dft"}), stats)
    np.testing.assert_allclose(found.weight, [1, 0.5])
    np.testing.assert_allclose(found.share(np.arange(2), 2), [1 / 3, 2 / 3], rtol=1e-6)


def test_probability_one_is_in_the_last_bin():
    assert bins(np.array([0.0, 0.049, 0.05, 0.999, 1.0])).tolist() == [0, 0, 1, 19, 19]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        # The integral over the logit z from -9.21024 to 0 of 1 / (weight (1 - p)), so
        # of 1 + e^z for sft and of e^-z + 2 + e^z for dft.
        ("sft", 9.21024 + 1 - 1e-4),
        ("dft", 9999 - 1 + 2 * 9.21024 + 1 - 1e-4),
        ("dft:floor=0.1", 84.4),
        ("power:alpha=0.5", 201),
    ],
)
def test_steps_to_learn_follow_the_law_of_the_logit(name, steps):
    assert steps_to_learn(build({"name": name}), 1e-4) == pytest.approx(steps, rel=5e-3)


def test_a_token_without_a_gradient_is_never_learned():
    assert steps_to_learn(build({"name": "threshold:tau=0.2"}), 0.1) == math.inf
    assert steps_to_learn(build({"name": "threshold:tau=0.2"}), 0.3) < 10
    assert steps_to_learn(build({"name": "dft"}), 0.6) == 0


def test_the_frozen_judge_stays_what_it_was():
    slow = steps_to_learn(build({"name": "prift"}), 1e-3)
    plain = steps_to_learn(build({"name": "sft"}), 1e-3)
    assert slow == pytest.approx(1000 * plain, rel=1e-3)


def test_what_hangs_on_the_step_has_no_law():
    assert steps_to_learn(build({"name": "talr"}), 1e-3) is None
