import numpy as np
import pytest
from scipy import stats as scipy_stats

from mlx_rsft import stats


@pytest.mark.parametrize("seed", range(20))
def test_mcnemars_p_value_is_that_of_the_exact_binomial_test(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    one, other = rng.random((2, n)) < rng.random((2, 1))
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    expected = 1.0
    if gained + lost:
        expected = scipy_stats.binomtest(gained, gained + lost).pvalue
    assert stats.mcnemar(one, other) == pytest.approx(expected, rel=1e-9)
    assert stats.mcnemar(other, one) == stats.mcnemar(one, other)


def test_models_that_agree_on_every_row_are_no_evidence():
    assert stats.mcnemar([True, False], [True, False]) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_holms_values_are_the_levels_at_which_the_procedure_rejects(seed):
    rng = np.random.default_rng(seed)
    p_values = (rng.random(rng.integers(1, 9)) ** 3).tolist()
    adjusted = stats.holm(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.5):
        assert [a <= level for a in adjusted] == _rejected(p_values, level)


def _rejected(p_values, level):
    """Holm's own words: step down, stop at the first that is not small enough."""
    rejected = [False] * len(p_values)
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


@pytest.mark.parametrize("seed", range(10))
def test_holm_lies_between_no_correction_and_bonferronis(seed):
    rng = np.random.default_rng(seed)
    p_values = rng.random(6) ** 2
    adjusted = np.array(stats.holm(p_values.tolist()))
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, 6 * p_values)).all()
    # Looser than Holm's by its proof, and there in scipy.
    loose = scipy_stats.false_discovery_control(p_values, method="bh")
    assert (adjusted >= loose - 1e-12).all()


def test_a_family_of_one_is_not_corrected():
    assert stats.holm([0.03]) == [0.03]
    assert stats.holm([]) == []
