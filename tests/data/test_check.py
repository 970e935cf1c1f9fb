import pytest

from mlx_rsft.data import check
from mlx_rsft.data.conversation import Conversation, Message


def _row(question, answer, place):
    turns = (Message("user", question), Message("assistant", answer))
    return Conversation(turns, place)


def _kinds(train, test=()):
    watch = check.Watch()
    found = [finding for row in train for finding in watch.look(row)]
    other = check.Watch(watch)
    found += [finding for row in test for finding in other.look(row)]
    return [(f.kind, f.where) for f in found]


def test_clean_splits_have_no_findings():
    assert not _kinds(train=[_row("a", "x", "t:1")], test=[_row("b", "x", "s:1")])


def test_repeats_and_contradictions_name_the_later_row():
    rows = [_row("a", "x", "t:1"), _row("a", "x", "t:2"), _row("a", "y", "t:3")]
    assert _kinds(train=rows) == [("duplicate", "t:2"), ("contradiction", "t:3")]


def test_a_question_in_train_and_test_is_a_leak_whatever_the_answer():
    found = _kinds(train=[_row("a b", "x", "t:1")], test=[_row("a b", "z", "s:1")])
    assert found == [("leak", "s:1")]


@pytest.mark.parametrize(
    "other", ["LINE 3: STOPS", "line  \uff13 stops?", "line 3 stops"]
)
def test_a_question_that_differs_in_case_width_or_marks_is_a_near_leak(other):
    train = [_row("Line 3 stops!", "x", "t:1")]
    assert _kinds(train=train, test=[_row(other, "x", "s:1")]) == [("near leak", "s:1")]


def test_another_question_is_no_leak():
    train = [_row("line stops", "x", "t:1")]
    assert not _kinds(train=train, test=[_row("line starts", "x", "s:1")])
    sums = [_row("2 + 3", "5", "t:1")]
    assert not _kinds(train=sums, test=[_row("4 + 5", "9", "s:1")])


@pytest.mark.parametrize(
    "garbled",
    [
        "Gr\u00c3\u00b6\u00dfe",  # UTF-8 read as Latin-1
        "don\u00e2\u20ac\u2122t",  # UTF-8 read as cp1252
        "\u7e5d\uff7c\u7e5d\uff69",  # UTF-8 read as Shift_JIS
        "12 \ufffd steel",
        "a\x00b",
    ],
)
def test_a_text_that_was_misread_is_named_in_question_and_answer(garbled):
    assert _kinds([_row(garbled, "x", "t:1")]) == [("encoding", "t:1")]
    assert _kinds([_row("x", garbled, "t:1")]) == [("encoding", "t:1")]


@pytest.mark.parametrize(
    "sound", ["Größe 12 Â", "naïve «Ça»", "異音がする", "tab\tnew\nline", "emoji 🔩"]
)
def test_a_sound_text_is_not_called_misread(sound):
    assert not _kinds([_row(sound, "x", "t:1")])


def test_only_repeats_are_harmless():
    kinds = ["malformed", "template", "too long", "contradiction", "leak", "near leak"]
    assert all(check.Finding(kind, "", "").hurts for kind in kinds)
    assert not check.Finding("duplicate", "", "").hurts
