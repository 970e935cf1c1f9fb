import copy
import re

import pytest

from mlx_rsft.report import pilot


def _metric(value):
    return {"value": value, "unit": "fraction"}


def _arm(name, seconds, **values):
    splits = {s: {"metrics": {"exact_match": _metric(v)}} for s, v in values.items()}
    cost = {"seconds": seconds} if seconds else None
    return {"name": name, "cost": cost, "splits": splits}


def _difference(arm, base, split, value, p):
    return {
        "arm": arm,
        "baseline": base,
        "split": split,
        "metric": "exact_match",
        "unit": "fraction",
        "better": "higher",
        "difference": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "p_adjusted": p,
        "n": 96,
        "seeds": 3,
    }


RECORD = {
    "verdict": "go",
    "reason": "dft is better than sft: on far exact_match differs.",
    "winner": "dft",
    "baseline": "sft",
    "decides": "exact_match",
    "seed": 0,
    "seconds": 480.0,
    "minutes": 10.0,
    "size": {"arms": ["sft", "dft"], "seeds": 3, "steps": 60},
    "probe": {"mean_p": 0.2, "rows": 64, "recommended": "dft", "suspects": 5},
    "splits": {
        "test": {"rows": 96, "role": "in"},
        "far": {"rows": 96, "role": "shifted"},
    },
    "arms": [
        _arm("base", 0, test=0.0, far=0.0),
        _arm("sft", 40.0, test=0.7, far=0.5),
        _arm("dft", 42.0, test=0.8, far=0.74),
    ],
    "differences": [
        _difference("dft", "sft", "test", 0.1, 0.04),
        _difference("dft", "sft", "far", 0.24, 0.001),
    ],
    "gained": [
        _difference("dft", "base", "test", 0.8, 0.001),
        _difference("dft", "base", "far", 0.74, 0.001),
    ],
    "missing": None,
    "limits": ["The learning rate is the same for all arms and was not tuned."],
    "export": [
        {
            "target": "mlx",
            "reader": "mlx-lm",
            "verified": True,
            "max_difference": 0.0,
            "unit": "nats",
            "note": "",
        }
    ],
}


def _record(**changes):
    return {**copy.deepcopy(RECORD), **changes}


def _lacking(**changes):
    lacks = {"split": "far", "arm": "dft", "rows": 96, "needed": 400, "more": 304}
    lacks |= {"towards": "go", **changes}
    return _record(verdict="undecided", winner="sft", missing=lacks)


def test_each_verdict_has_its_headline():
    assert pilot.headline(RECORD) == "GO: train with dft instead of sft."
    assert pilot.headline(_record(verdict="no-go")).startswith("NO-GO: stay with sft")
    assert pilot.headline(_lacking()).startswith("NOT ENOUGH DATA: ")


def test_a_manager_reads_what_is_right_of_a_hundred_and_no_statistics():
    text = " ".join(pilot.for_managers(RECORD))
    assert "far (shifted conditions, 96 rows): untrained 0 of 100 right" in text
    assert "sft 50 of 100 right, dft 74 of 100 right" in text
    assert "On far that is 24 in 100 better than sft" in text
    assert "takes 1.05 times as long" in text
    assert not re.search(r"\bp 0|interval|95 %|seed", text)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (
            {},
            "About 304 more rows of far (400 instead of 96) would show that dft is bet",
        ),
        ({"towards": "no-go"}, "would show that dft is not worth a change"),
        ({"more": 0}, "More seeds would show that dft is better"),
    ],
)
def test_not_enough_data_says_how_much_more(lacks, said):
    assert said in " ".join(pilot.for_managers(_lacking(**lacks)))


def test_that_training_itself_brought_nothing_is_not_kept_quiet():
    gained = [_difference("dft", "base", "far", 0.01, 0.8)]
    text = " ".join(pilot.for_managers(_record(gained=gained)))
    assert "Against the untrained model, dft is not shown to be better on: far." in text
    assert "untrained model, dft is" not in " ".join(pilot.for_managers(RECORD))


def test_one_training_each_is_said():
    once = {"arms": ["sft", "dft"], "seeds": 1, "steps": 60}
    assert "trained once only" in " ".join(pilot.for_managers(_record(size=once)))


def test_an_engineer_reads_every_difference_with_its_interval_and_every_export():
    lines = list(pilot.for_engineers(RECORD))
    assert sum("95 % +" in line for line in lines) == 4
    assert any(
        line == "dft - sft on far: +24.0 points of exact_match "
        "(95 % +19.0 to +29.0, p 0.001, n 96 x 3)"
        for line in lines
    )
    assert "export mlx: verified by mlx-lm, 0 nats apart" in lines
    assert any(line.startswith("limit: The learning rate") for line in lines)


def test_an_export_that_differs_and_what_is_unknown_are_said():
    entry = {**RECORD["export"][0], "verified": False, "max_difference": 0.3}
    unknown = {**RECORD["differences"][0], "low": None, "p_adjusted": None}
    text = "\n".join(
        pilot.for_engineers(_record(export=[entry], differences=[unknown]))
    )
    assert "DIFFERS, do not use it by mlx-lm, 0.3 nats apart" in text
    assert "interval unknown" in text
