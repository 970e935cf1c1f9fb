import numpy as np
import pytest

from mlx_rsft import stats
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import choose, differences
from mlx_rsft.evaluation.values import Values

GAUGES = choose(["exact_match", "nll"])


def _arm(rng, rate, seeds=3, n=60):
    """Marks and NLLs of one arm on two splits."""
    tokens = np.random.default_rng(0).integers(1, 9, n)
    return {
        split: {
            "exact_match": [
                Values((rng.random(n) < rate).astype(float).tolist())
                for _ in range(seeds)
            ],
            "nll": [
                Values((tokens * rng.gamma(2.0, size=n)).tolist(), tokens.tolist())
                for _ in range(seeds)
            ],
        }
        for split in ("test", "shifted")
    }


def _all(seed=0, rates=(0.5, 0.5, 0.9), **changes):
    rng = np.random.default_rng(seed)
    arms = {f"arm{n}": _arm(rng, rate, **changes) for n, rate in enumerate(rates)}
    return arms, differences.differences(
        arms, "arm0", GAUGES, lambda split, metric: 0.1, 0
    )


def test_every_arm_is_held_against_the_baseline_on_all_splits_by_all_metrics():
    _, found = _all()
    assert len(found) == 2 * 2 * 2
    assert {c.arm for c in found} == {"arm1", "arm2"}
    assert {c.baseline for c in found} == {"arm0"}


def test_a_difference_is_that_of_the_figures():
    arms, found = _all()
    for contrast in found:
        gauge = GAUGES[contrast.metric]
        one, other = (
            np.mean(
                [
                    gauge.summarise(values).value
                    for values in arms[arm][contrast.split][contrast.metric]
                ]
            )
            for arm in (contrast.arm, "arm0")
        )
        assert contrast.difference == pytest.approx(one - other)
        assert contrast.low < contrast.difference < contrast.high


def test_p_values_are_corrected_over_arms_and_splits_of_a_metric():
    _, found = _all()
    for metric in GAUGES:
        family = [c for c in found if c.metric == metric]
        expected = stats.holm([c.p_value for c in family])
        assert [c.p_adjusted for c in family] == expected


def test_one_seed_of_marks_is_tested_exactly_and_nothing_else_is():
    arms, found = _all(seeds=1)
    kinds = {c.metric: c.test for c in found}
    assert kinds == {"exact_match": "mcnemar", "nll": "bootstrap"}
    for contrast in (c for c in found if c.metric == "exact_match"):
        one, other = (
            arms[arm][contrast.split]["exact_match"][0].totals
            for arm in (contrast.arm, "arm0")
        )
        assert contrast.p_value == stats.mcnemar(one, other)
    assert {c.test for c in _all()[1]} == {"bootstrap"}


def test_gain_and_most_point_to_the_better_side():
    _, found = _all()
    for contrast in found:
        sign = 1 if contrast.metric == "exact_match" else -1
        assert contrast.gain == sign * contrast.difference
        assert contrast.most >= contrast.gain


def test_what_rows_cannot_be_paired_by_or_decide_nothing_is_refused():
    with pytest.raises(ConfigError, match="nll"):
        differences.check(choose(["exact_match", "perplexity"]))
    with pytest.raises(ConfigError, match="cannot decide"):
        differences.check(choose(["length_ratio"]))
    differences.check(GAUGES)


def test_pooled_over_seeds_a_figure_is_their_mean_and_counts_rows_once():
    arms, _ = _all()
    for metric, gauge in GAUGES.items():
        seeds = arms["arm2"]["test"][metric]
        pooled = differences.pooled(seeds, gauge, 0)
        alone = [gauge.summarise(values) for values in seeds]
        assert pooled.value == pytest.approx(np.mean([m.value for m in alone]))
        assert pooled.n == 60
        assert pooled.low < pooled.value < pooled.high
        assert differences.pooled(seeds[:1], gauge, 0) == alone[0]


def test_a_share_stays_a_share():
    right = [Values([1.0] * 40)] * 3
    metric = differences.pooled(right, GAUGES["exact_match"], 0)
    assert metric.value == metric.high == 1.0
    assert 0.9 < metric.low < 1.0


def test_what_is_assumed_of_marks_is_that_a_fifth_disagree():
    marks = Values([1.0, 0.0])
    spread = differences.expected_spread(GAUGES["exact_match"], marks)
    assert spread**2 == pytest.approx(differences.DISAGREE)
    nll = Values([1.0, 6.0, 2.0], [1, 3, 1])
    assert differences.expected_spread(GAUGES["nll"], nll) > 0
