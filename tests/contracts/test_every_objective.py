"""What every member of OBJECTIVES owes its users."""

import inspect
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import loss
from mlx_rsft.errors import ConfigError
from mlx_rsft.objectives import OBJECTIVES, TokenStats, build

WRITTEN = {
    "sft": ["sft", "sft:floor=0.5"],
    "dft": ["dft", "dft:floor=0.1"],
    "power": ["power:alpha=0", "power:alpha=0.5", "power:alpha=2,floor=0.2"],
}
CASES = [text for texts in WRITTEN.values() for text in texts]
EXTREMES = [0.0, -1e-8, -0.7, -20.0, -69.0, -500.0]


def test_every_member_is_exercised_here():
    assert set(WRITTEN) == set(OBJECTIVES)


@pytest.mark.parametrize("text", CASES)
def test_weights_are_finite_and_between_0_and_1_at_every_probability(text):
    weigh = build({"name": text}).weight
    weight = np.array(weigh(TokenStats(mx.array(EXTREMES))))
    assert weight.shape == (len(EXTREMES),)
    assert weight.dtype == np.float32
    assert np.isfinite(weight).all()
    assert ((weight >= 0) & (weight <= 1)).all()


@pytest.mark.parametrize("text", CASES)
def test_the_logit_gradient_is_the_weight_times_softmax_minus_onehot(text):
    weigh = build({"name": text}).weight
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(5, 7)) * 3
    targets = rng.integers(0, 7, 5)

    def objective(z):
        return loss.dense(lambda h: h, z, mx.array(targets), weigh).objective

    found = np.array(mx.grad(objective)(mx.array(logits, mx.float32)))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    onehot = np.eye(7)[targets]
    logp = np.log((p * onehot).sum(1))
    weight = np.array(weigh(TokenStats(mx.array(logp, mx.float32))))
    # float32 softmax and weight against float64: a few units of 2 ** -24.
    np.testing.assert_allclose(found, weight[:, None] * (p - onehot), atol=2e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_string_and_the_table_build_the_same(name):
    for text in WRITTEN[name]:
        written = build({"name": text})
        tabled = build(written.as_table())
        assert tabled.parameters == written.parameters
        logp = TokenStats(mx.array(EXTREMES))
        assert mx.array_equal(tabled.weight(logp), written.weight(logp)).item()
        assert build({"name": str(written)}).parameters == written.parameters


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_docstring_and_the_readme_have_it(name):
    assert inspect.getdoc(OBJECTIVES[name].factory)
    readme = Path(__file__).parents[2] / "README.md"
    assert f"| `{name}` |" in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "No objective"),
        ({"name": "dtf"}, "Did you mean 'dft'"),
        ({"name": "dft:flor=0.1"}, "Did you mean 'floor'"),
        ({"name": "dft:floor"}, "not a parameter"),
        ({"name": "dft:floor=x"}, "not a parameter"),
        ({"name": "dft:floor=0.1,floor=0.2"}, "given twice"),
        ({"name": "dft", "floor": 2}, "between 0 and 1"),
        ({"name": "dft", "floor": "0.1"}, "expected a number"),
        ({"name": "dft", "floor": True}, "expected a number"),
        ({"name": "power"}, "'alpha' is missing"),
        ({"name": "power:alpha=-1"}, "at least 0"),
        ({"name": "power:alpha=nan"}, "finite"),
        ({"name": "dft:alpha=1"}, "no parameter 'alpha'"),
    ],
)
def test_a_wrong_objective_is_refused_with_what_to_do(table, said):
    with pytest.raises(ConfigError, match=said):
        build(table)
