import pytest

from mlx_rsft.objectives import build
from mlx_rsft.objectives.choose import Prior, choose


def _prior(mean_p, tokens=100):
    return Prior(rows=10, tokens=tokens, mean_p=mean_p, nll=1.0)


@pytest.mark.parametrize(
    ("mean_p", "name", "alpha"),
    [(0.01, "sft", None), (0.2, "power", 0.2), (0.5, "power", 0.5), (0.8, "dft", None)],
)
def test_the_stronger_the_prior_the_stronger_the_rectification(mean_p, name, alpha):
    choice = choose(_prior(mean_p))
    built = build({"name": choice.objective})
    assert built.name == name
    assert built.parameters.get("alpha") == alpha
    assert f"{mean_p:.2f}" in choice.reason


def test_only_tags_with_a_strong_prior_are_rectified_and_the_others_are_named():
    tags = {"easy": _prior(0.9), "fair": _prior(0.8, 300), "facts": _prior(0.05)}
    choice = choose(_prior(0.5), tags)
    built = build({"name": choice.objective})
    assert built.name == "dft"
    assert built.composition.where == ("easy", "fair")
    assert "facts 0.05" in choice.reason


def test_tags_that_agree_are_treated_as_one():
    choice = choose(_prior(0.85), {"a": _prior(0.9), "b": _prior(0.8)})
    assert not build({"name": choice.objective}).composition.where
    assert choose(_prior(0.02), {"a": _prior(0.03), "b": _prior(0.01)}).objective == (
        "sft"
    )
