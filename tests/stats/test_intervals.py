import numpy as np
import pytest

from mlx_rsft import stats


def test_a_ratio_weighs_rows_by_their_tokens():
    metric = stats.ratio([2.0, 30.0], [1, 9], "nats/token")
    assert metric.value == 3.2
    assert metric.n == 2


def test_the_standard_error_of_equal_rows_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    metric = stats.ratio(values, np.ones(50), "x")
    assert metric.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-12)


def test_the_standard_error_shrinks_with_the_root_of_n():
    rng = np.random.default_rng(1)
    values, counts = rng.gamma(2.0, size=4000), rng.integers(1, 9, 4000)
    few = stats.ratio(values[:400] * counts[:400], counts[:400], "x")
    many = stats.ratio(values * counts, counts, "x")
    assert few.stderr / many.stderr == pytest.approx(10**0.5, rel=0.15)


def test_the_interval_holds_the_truth_in_about_95_of_100_samples():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(1000):
        counts = rng.integers(1, 20, 60)
        totals = counts * (2.0 + rng.normal(size=60))
        metric = stats.ratio(totals, counts, "x")
        inside += metric.low <= 2.0 <= metric.high
    assert 925 <= inside <= 970


def test_one_row_has_no_known_error():
    assert np.isnan(stats.ratio([1.0], [1], "x").stderr)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilsons_interval_has_its_published_values(hits, n, low, high):
    metric = stats.proportion([True] * hits + [False] * (n - hits))
    assert metric.low == pytest.approx(low, abs=5e-5)
    assert metric.high == pytest.approx(high, abs=5e-5)


def test_perplexity_is_the_exponential_of_the_nll_and_its_interval():
    nll = stats.ratio([2.0, 3.0, 4.0], [2, 2, 2], "nats/token")
    perplexity = stats.exponential(nll, "per token")
    assert perplexity.value == np.exp(1.5)
    assert perplexity.low == np.exp(nll.low)


def test_nothing_to_divide_by_is_unknown_and_no_crash():
    metric = stats.ratio([0.0, 0.0], [0, 0], "x")
    assert np.isnan([metric.value, metric.stderr, metric.low, metric.high]).all()
    assert metric.n == 2
