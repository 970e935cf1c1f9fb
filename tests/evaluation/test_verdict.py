import pytest

from mlx_rsft.evaluation import verdict
from mlx_rsft.evaluation.differences import Contrast


def _contrast(split, difference, p, arm="dft", **changes):
    half = 0.03
    return Contrast(
        **{
            "split": split,
            "metric": "exact_match",
            "arm": arm,
            "baseline": "sft",
            "difference": difference,
            "low": difference - half,
            "high": difference + half,
            "p_value": p / 2,
            "p_adjusted": p,
            "n": 100,
            "seeds": 3,
            "detectable": 0.1,
            "test": "bootstrap",
            "better": "higher",
            "unit": "fraction",
            "spread": 0.4,
            **changes,
        }
    )


def _decide(*contrasts, shifted=("shifted",), diverged=()):
    return verdict.decide(contrasts, set(shifted), set(diverged))


def test_a_gain_where_conditions_shifted_and_harm_nowhere_is_go():
    found = _decide(_contrast("test", 0.0, 1.0), _contrast("shifted", 0.2, 0.01))
    assert (found.word, found.arm) == ("go", "dft")
    assert "on shifted exact_match differs by +20.0 points" in found.reason
    assert "not shown to be worse" in found.reason


def test_what_is_lost_elsewhere_takes_an_arm_out():
    found = _decide(_contrast("test", -0.2, 0.01), _contrast("shifted", 0.2, 0.01))
    assert found.word == "no-go"
    assert "on test exact_match differs by -20.0 points" in found.reason


def test_a_gain_in_distribution_alone_decides_only_if_nothing_shifted():
    gains = [_contrast("test", 0.2, 0.01), _contrast("shifted", 0.05, 0.4)]
    assert _decide(*gains).word == "undecided"
    assert _decide(gains[0], shifted=()).word == "go"


def test_only_corrected_p_values_count():
    lucky = _contrast("shifted", 0.2, 0.06, p_value=0.01)
    assert _decide(lucky).word == "undecided"


def test_lower_is_better_where_the_metric_says_so():
    fewer = {"metric": "nll", "better": "lower", "unit": "nats/token"}
    assert _decide(_contrast("shifted", -0.2, 0.01, **fewer)).word == "go"
    assert _decide(_contrast("shifted", 0.2, 0.01, **fewer)).word == "no-go"


def test_a_gain_that_the_interval_rules_out_is_no_go():
    assert _decide(_contrast("shifted", -0.02, 0.3)).word == "no-go"
    assert _decide(_contrast("shifted", 0.0, 1.0)).word == "undecided"


def test_the_best_of_several_winners_is_named_and_losers_stop_nobody():
    found = _decide(
        _contrast("shifted", 0.1, 0.01, arm="power"),
        _contrast("shifted", 0.2, 0.01, arm="floor"),
        _contrast("shifted", -0.9, 0.01, arm="dft"),
    )
    assert (found.word, found.arm) == ("go", "floor")


def test_an_arm_that_diverged_never_wins():
    found = _decide(_contrast("shifted", 0.2, 0.01), diverged=("dft",))
    assert found.word == "no-go"
    assert "came to no end" in found.reason


def test_undecided_says_how_many_rows_would_decide():
    found = _decide(_contrast("shifted", 0.05, 0.4))
    assert found.word == "undecided"
    assert "about 503 rows" in found.reason
    behind = _decide(_contrast("shifted", -0.005, 0.9))
    assert "rows of that split" not in behind.reason


def test_one_arm_alone_is_undecided():
    assert _decide().word == "undecided"


@pytest.mark.parametrize("seeds", [1, 3])
def test_differences_are_told_with_their_interval_rows_and_seeds(seeds):
    text = verdict.told(_contrast("shifted", 0.123, 0.004, seeds=seeds))
    assert "+9.3 to +15.3 points" in text
    assert "100 rows" in text
    assert f"{seeds} seed" in text
    assert ("seeds" in text) == (seeds != 1)
