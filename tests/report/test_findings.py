import dataclasses

import pytest

from mlx_rsft.report.comparison import from_record
from mlx_rsft.report.findings import Findings


@pytest.fixture
def found(record):
    return Findings(from_record(record))


def test_the_untrained_model_is_no_arm_and_the_baseline_comes_first(record):
    record["arms"] = record["arms"][::-1]
    found = Findings(from_record(record))
    assert found.trained[0].name == "sft"
    assert found.base.name == found.all_arms[0].name == "base"
    assert found.number("sft") == 0
    assert found.number("base") is None


def test_the_best_is_the_largest_gain_where_conditions_have_shifted(found):
    assert (found.best.arm, found.best.split) == (
        "dft:floor=0.1",
        "new_parts_and_stations",
    )


def test_a_gain_that_is_shown_goes_before_a_larger_one_that_may_be_chance(record):
    shown = Findings(from_record(record)).best
    larger = dict(next(d for d in record["differences"] if d["arm"] == "staged"))
    larger |= {"split": "new_phrasings", "difference": 0.5, "low": -0.1, "high": 0.9}
    record["differences"] = [
        larger if (d["arm"], d["split"]) == ("staged", "new_phrasings") else d
        for d in record["differences"]
    ]
    assert Findings(from_record(record)).best == shown


def test_the_recommended_arm_goes_before_all_others(record):
    record["recommended"] = "staged"
    best = Findings(from_record(record)).best
    assert (best.arm, best.split) == ("staged", "new_parts_and_stations")


def test_failures_are_found(found):
    assert [(a.name, len(s)) for a, s in found.zeros] == [("dft", 3)]
    assert found.without_gain == ["test", "new_phrasings"]
    assert {d.arm for d in found.harmed} == {"dft"}
    assert found.diverged == []


def test_nothing_is_zero_where_less_is_better(record):
    record["method"]["decides"] = "nll"
    found = Findings(from_record(record))
    assert found.metric == "nll"
    assert found.lower_is_better
    assert found.zeros == []


def test_rows_like_the_training_rows_come_first_and_test_is_them_unless_said(record):
    record["splits"] = {}
    found = Findings(from_record(record))
    assert found.splits[0] == found.in_distribution == "test"
    assert found.is_shifted("new_phrasings")
    assert found.rows("test") == 96


def test_four_times_the_rows_show_half_the_difference(found):
    wanted = dataclasses.replace(found.best, difference=0.045, detectable=0.09, n=96)
    assert found.rows_needed(wanted) == 384
    assert found.rows_needed(dataclasses.replace(wanted, difference=-0.045)) == 384
    assert found.rows_needed(dataclasses.replace(wanted, difference=0.2)) is None
    assert found.rows_needed(dataclasses.replace(wanted, detectable=None)) is None
