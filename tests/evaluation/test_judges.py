import json
from itertools import product

import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation import fields, judges


def _row(answer):
    return Example((1, 2), ((1, 2),), "f.jsonl:7", answer=answer)


@pytest.mark.parametrize(
    ("written", "shown", "options", "score"),
    [
        ("about 3.14", "3.14", {}, 1),
        ("3.15", "3.14", {}, 0),
        ("3.15", "3.14", {"tolerance": 0.011}, 1),
        ("101", "100", {"relative": 0.01}, 1),
        ("-5", "5", {}, 0),
        ("1,250 parts", "1250", {}, 1),
        ("2 + 2 = 4", "4", {}, 1),
        ("4 of 9", "4", {"take": "first"}, 1),
        ("1e3", "1000", {}, 1),
        ("none", "4", {}, 0),
        ("1e999", "4", {"tolerance": 1e6}, 0),
    ],
)
def test_numbers_match_within_their_tolerance(written, shown, options, score):
    assert judges.numeric(**options)(written, _row(shown)) == score


def test_the_answer_may_stand_anywhere_for_contains():
    assert judges.contains()("It is Bearing.", _row("Bearing")) == 1
    assert judges.contains()("It is bearing.", _row("Bearing")) == 0
    assert judges.contains(case="ignore")("It is BEARING.", _row("Bearing")) == 1
    assert judges.contains(text="ok")("all ok", _row("whatever")) == 1


def test_groups_of_a_pattern_are_compared_and_nothing_else():
    row = _row("defect: seal; action: replace")
    written = "defect: seal; action: weld"
    pattern = r"defect: (?P<what>\w+); action: (?P<do>\w+)"
    assert judges.regex(pattern)(written, row) == 0
    assert judges.regex(pattern, "1")(written, row) == 1
    assert judges.regex(pattern, "what")(written, row) == 1
    assert judges.regex(pattern, "what+do")(written, row) == 0
    assert judges.regex(r"defect: \w+")(written, row) == 1
    assert judges.regex(r"defect: \w+")("nothing", row) == 0


def test_json_is_compared_by_field_and_as_a_whole():
    row = _row('{"part": "seal", "at": {"station": 4}, "urgent": true}')
    same = '{"urgent": true, "at": {"station": 4.0}, "part": "seal"}'
    other = '{"part": "seal", "at": {"station": 5}, "urgent": 1}'
    assert judges.json_fields()(same, row) == 1
    assert judges.json_fields()(other, row) == 0
    assert judges.json_fields("part")(other, row) == 1
    assert judges.json_fields("at.station")(other, row) == 0
    assert judges.json_fields("urgent")(other, row) == 0
    assert judges.json_fields("part")("seal", row) == 0
    assert judges.json_fields("absent")(same, row) == 1
    assert judges.json_fields("absent")('{"absent": null}', row) == 0


def test_equality_in_json_is_that_of_its_text():
    values = [True, 1, 0, False, None, "1", [1], [True], {"a": 1}, {"a": True}, []]
    for one, other in product(values, values):
        wanted = json.dumps(one) == json.dumps(other)
        assert fields.same(one, other) == wanted, (one, other)


def test_what_only_python_takes_for_json_is_none():
    for text in ("NaN", '{"a": Infinity}', "{'a': 1}", "", "[" * 100_000):
        assert fields.parsed(text) is fields.ABSENT


def test_a_form_is_that_of_the_demonstrations():
    row = _row('{"a": 1, "b": 2}')
    assert judges.format_valid()('{"b": 9, "a": 0}', row) == 1
    assert judges.format_valid()('{"b": 9}', row) == 0
    assert judges.format_valid()("a: 1", row) == 0
    assert judges.format_valid()("[2]", _row("[1]")) == 1
    pattern = judges.format_valid(r"defect: .*; action: \w+")
    assert pattern("defect: x y; action: z\n", _row("defect: a; action: b")) == 1
    assert pattern("a; b", _row("defect: a; action: b")) == 0


@pytest.mark.parametrize(
    ("judge", "answer"),
    [
        (judges.numeric(), "no digits"),
        (judges.regex("x+"), "y"),
        (judges.json_fields(), "[1]"),
        (judges.json_fields(), "text"),
        (judges.format_valid(), "text"),
        (judges.format_valid("x+"), "y"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(judge, answer):
    with pytest.raises(DataError, match=r"f\.jsonl:7: The demonstrated answer"):
        judge("anything", _row(answer))


def test_bad_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"tolerance = -1"):
        judges.numeric(tolerance=-1)
    with pytest.raises(ConfigError, match=r"unterminated|missing"):
        judges.regex("(")
    with pytest.raises(ConfigError, match="no such group"):
        judges.regex("(a)", "2")
    with pytest.raises(ConfigError, match="no such group"):
        judges.regex("(a)", "name")
