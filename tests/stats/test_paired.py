import numpy as np
import pytest
from scipy import stats as scipy_stats

from mlx_rsft import stats


def _crossed(rng, seeds, n, of_seeds, of_rows, of_noise):
    """Differences with a spread of their own for seeds, rows, and both together."""
    return (
        of_seeds * rng.normal(size=(seeds, 1))
        + of_rows * rng.normal(size=(1, n))
        + of_noise * rng.normal(size=(seeds, n))
    )


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_rows"),
    [
        (1, 0.0, 0.0),
        (1, 0.0, 1.0),
        (3, 0.4, 1.0),
        (3, 1.0, 0.0),
        (5, 0.2, 1.0),
        (5, 0.4, 1.0),
        (5, 1.0, 0.0),
        (8, 0.2, 0.5),
    ],
)
def test_the_interval_holds_the_truth_in_93_to_97_of_100(seeds, of_seeds, of_rows):
    rng = np.random.default_rng(0)
    inside = 0
    for place in range(800):
        values = _crossed(rng, seeds, 96, of_seeds, of_rows, 1.0)
        found = stats.difference(values, seed=place, draws=400)
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / 800 <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.05, 0.1, 0.2])
def test_seeds_that_hardly_differ_only_make_it_wider(seeds, of_seeds):
    rng = np.random.default_rng(5)
    inside = 0
    for place in range(500):
        values = _crossed(rng, seeds, 96, of_seeds, 1.0, 1.0)
        found = stats.difference(values, seed=place, draws=400)
        inside += found.low <= 0 <= found.high
    assert inside / 500 >= 0.935


def _marked(rng, hard):
    """Right or wrong by how hard a row is, and by how well a seed went."""
    return rng.random((3, hard.size)) < (0.9 - 0.4 * rng.random((3, 1))) * hard


def test_right_and_wrong_rows_have_honest_intervals_too():
    n, rng = 60, np.random.default_rng(0)
    inside = 0
    for place in range(1000):
        hard = rng.random((1, n))
        one, other = (_marked(rng, hard) for _ in range(2))
        values = one.astype(float) - other
        found = stats.difference(values, seed=place, grain=1.0, draws=400)
        inside += found.low <= 0 <= found.high
    # The grain makes them a little wider than they need be.
    assert 0.93 <= inside / 1000 <= 0.985


def test_the_interval_of_one_seed_is_scipys_bootstrap():
    values = np.random.default_rng(3).gamma(2.0, size=120)
    ours = stats.difference(values[None], seed=0)
    reference = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = reference.high - reference.low
    assert ours.low == pytest.approx(reference.low, abs=0.04 * width)
    assert ours.high == pytest.approx(reference.high, abs=0.04 * width)


@pytest.mark.parametrize("seed", range(30))
def test_the_p_value_is_below_five_percent_where_the_interval_leaves_zero_out(seed):
    rng = np.random.default_rng(seed)
    shift = 0.25 * rng.random()
    values = shift + _crossed(rng, 3, 100, 0.05, 0.5, 1.0)
    found = stats.difference(values, seed=seed)
    assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high)


def test_turning_the_arms_round_turns_the_difference_round():
    values = np.random.default_rng(0).normal(0.2, size=(3, 80))
    one, other = (stats.difference(v, seed=1) for v in (values, -values))
    assert one.value == -other.value
    assert one.low == pytest.approx(-other.high, abs=0.03)
    assert one.p_value == pytest.approx(other.p_value, abs=0.02)


def test_the_same_seed_draws_the_same_and_order_of_rows_does_not_matter_much():
    values = np.random.default_rng(0).normal(0.1, size=(3, 80))
    assert stats.difference(values, seed=1) == stats.difference(values, seed=1)
    other = stats.difference(values[:, ::-1], seed=1)
    assert other.low == pytest.approx(stats.difference(values, seed=1).low, abs=0.02)


def test_copied_seeds_narrow_nothing():
    row = np.random.default_rng(0).normal(size=(1, 100))
    one = stats.difference(row, seed=0)
    copied = stats.difference(np.repeat(row, 5, 0), seed=0)
    assert copied.high - copied.low >= 0.97 * (one.high - one.low)


def test_seeds_that_disagree_widen_the_interval():
    rows = np.random.default_rng(0).normal(size=(3, 200))
    apart = rows + np.array([[-0.3], [0.0], [0.3]])
    calm, torn = (stats.difference(v, seed=0) for v in (rows, apart))
    assert torn.high - torn.low > 2 * (calm.high - calm.low)


def test_rows_that_all_agree_are_not_proof():
    same = stats.difference(np.zeros((3, 50)), seed=0, grain=1.0)
    assert same.low < 0 < same.high
    assert same.p_value == pytest.approx(1.0, abs=0.05)


def test_one_row_says_nothing_of_its_interval():
    found = stats.difference([[1.0]], seed=0)
    assert found.value == 1.0
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_many_rows_are_resampled_in_pieces_without_a_seam():
    values = np.random.default_rng(0).normal(0.1, size=(1, 5000))
    found = stats.difference(values, seed=0, draws=1500)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.96 * values.std() / 5000**0.5, rel=0.08)


def test_influences_have_the_ratio_as_their_mean_and_its_error_as_theirs():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 20, 90)
    totals = counts * rng.normal(1.0, 1.0, 90)
    found = stats.influences(totals[None], counts[None])
    metric = stats.ratio(totals, counts, "x")
    assert found.mean() == pytest.approx(metric.value)
    assert found.std(ddof=1) / 90**0.5 == pytest.approx(metric.stderr, rel=1e-9)
    same = stats.influences(totals[None], np.ones((1, 90)))
    assert same == pytest.approx(totals[None])
