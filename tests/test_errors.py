import pytest

from mlx_rsft.errors import (
    CheckFailed,
    DataError,
    Interrupted,
    RsftError,
    nearest,
    raise_together,
)


def test_a_message_says_where_what_and_what_to_do():
    problem = DataError("No reply.", where="train.jsonl:17", hint="Add one.")
    assert str(problem) == "train.jsonl:17: No reply. Add one."
    assert problem.as_record() == {
        "kind": "data",
        "message": "No reply.",
        "where": "train.jsonl:17",
        "hint": "Add one.",
    }


def test_gathered_problems_are_all_in_one_error_of_their_kind():
    raise_together([])
    with pytest.raises(DataError, match=r"2 problems:\n  a:1: x\n  a:2: y"):
        raise_together([DataError("x", where="a:1"), DataError("y", where="a:2")])


def test_many_problems_are_counted_rather_than_listed_without_end():
    problems = [DataError("x", where=f"a:{n}") for n in range(50)]
    with pytest.raises(DataError, match="and 30 more"):
        raise_together(problems)


def test_exit_codes_are_those_of_the_contract():
    assert RsftError.exit_code == 2
    assert CheckFailed.exit_code == 3
    assert Interrupted.exit_code == 130


def test_the_nearest_name_is_offered():
    assert nearest("learning_rat", ["learning_rate", "rank"]) == (
        "Did you mean 'learning_rate'?"
    )
    assert nearest("zzz", ["b", "a"]) == "Known: a, b."
