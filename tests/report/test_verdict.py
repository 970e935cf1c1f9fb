import re

import pytest

from mlx_rsft.report.comparison import from_record
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.verdict import failures, next_steps, verdict
from mlx_rsft.report.words import Words

EN, JA = Words("en"), Words("ja")


def _said(part, record, say=EN):
    markup = part(say, Findings(from_record(record)))
    return re.sub("<[^>]*>", "", markup)


@pytest.mark.parametrize(
    ("kind", "stamp", "sentence"),
    [
        ("go", "✓Go", "dft:floor=0.1 does better than sft"),
        ("no-go", "✕No-go", "Keep sft: the evidence does not support a change."),
        ("undecided", "?Undecided", "These data cannot decide"),
    ],
)
def test_a_verdict_is_a_sign_a_word_and_a_sentence(record, kind, stamp, sentence):
    record["verdict"] = kind
    said = _said(verdict, record)
    assert said.startswith(stamp)
    assert sentence in said


def test_the_verdict_names_gain_price_and_what_stays_invisible(record):
    said = _said(verdict, record)
    assert "dft:floor=0.1 reaches 97.9\N{NO-BREAK SPACE}%" in said
    assert "That is more than chance explains." in said
    assert "That may be chance." in said
    assert "1.02× the time of sft" in said
    assert "differences below 9.0\N{NO-BREAK SPACE}points stay invisible" in said
    assert record["reason"] in said


def test_an_arm_that_scores_nothing_is_named_in_both_languages(record):
    assert "dft has nothing right on any split: it scores 0." in _said(failures, record)
    assert "dft はどのテスト区分でも正解がなく" in _said(failures, record, JA)


def test_a_split_that_nobody_mends_is_named(record):
    said = _said(failures, record)
    assert "On new_phrasings, no arm is shown to be better than sft." in said
    assert "On new_parts_and_stations, no arm" not in said
    assert "No objective is shown to mend new_phrasings" in _said(next_steps, record)


def test_only_an_arm_that_learns_nothing_is_advised_against(record):
    assert "Do not use dft as it is." in _said(next_steps, record)
    record["baseline"] = "dft"
    assert "Do not use" not in _said(next_steps, record)


def test_harm_is_named_with_its_size(record):
    for item in record["differences"]:
        if item["arm"] == "staged" and item["split"] == "test":
            item |= {"difference": -0.2, "low": -0.3, "high": -0.1, "p_adjusted": 0.01}
    assert "On test, staged is worse than sft by \N{MINUS SIGN}20.0" in _said(
        failures, record
    )


def test_divergence_is_named(record):
    record["arms"][2]["diverged"] = True
    assert "The training of dft diverged." in _said(failures, record)


def test_where_nothing_failed_that_is_said(record):
    record["arms"] = [a for a in record["arms"] if a["name"] not in ("dft", "base")]
    record["differences"] = [
        d | {"difference": 0.2, "low": 0.1, "high": 0.3, "p_adjusted": 0.01}
        for d in record["differences"]
        if d["arm"] == "staged"
    ]
    assert _said(failures, record).startswith("No arm scored 0")


def test_undecided_says_how_many_rows_would_decide(record):
    record["verdict"] = "undecided"
    for item in record["differences"]:
        item |= {"difference": 0.03, "low": -0.03, "high": 0.09, "detectable": 0.06}
    said = _said(next_steps, record)
    assert "About 384 rows in" in said
    assert "(96 now)" in said
