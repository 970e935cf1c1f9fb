import numpy as np
import pytest

from mlx_rsft import stats


@pytest.mark.parametrize(
    # The protocol's table: share of rows on which two models disagree, points.
    ("share", "n", "points"),
    [(0.1, 192, 6.4), (0.2, 192, 9.0), (0.1, 500, 4.0), (0.2, 1000, 4.0)],
)
def test_what_is_detectable_is_what_the_protocol_states(share, n, points):
    assert 100 * stats.detectable(share**0.5, n) == pytest.approx(points, abs=0.06)


def test_a_difference_of_that_size_is_found_in_80_of_100_comparisons():
    rng = np.random.default_rng(0)
    n, found = 150, 0
    truth = stats.detectable(1.0, n)
    for place in range(400):
        values = truth + rng.normal(size=(1, n))
        found += stats.difference(values, seed=place, draws=1000).p_value <= 0.05
    assert 290 <= found <= 350


def test_rows_needed_is_the_inverse_of_what_is_detectable():
    n = stats.rows_needed(0.05, 0.4)
    assert stats.detectable(0.4, n) <= 0.05 < stats.detectable(0.4, n - 1)


def test_rows_to_rule_out_a_gain_rule_it_out_in_80_of_100_comparisons():
    rng = np.random.default_rng(0)
    n, ruled_out = stats.rows_to_rule_out(-0.05, 1.0, 0.2), 0
    assert n == 126
    for place in range(400):
        values = -0.05 + rng.normal(size=(1, n))
        ruled_out += stats.difference(values, seed=place, draws=1000).high < 0.2
    assert 290 <= ruled_out <= 350
