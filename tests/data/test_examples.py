from collections import Counter

import pytest

from mlx_rsft import testing
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.examples import Shape, examples
from mlx_rsft.errors import DataError


def _row(place, answer="12 mm"):
    turns = (Message("user", "how wide?"), Message("assistant", answer))
    return Conversation(turns, f"f:{place}", weight=place / 2)


def _shape(max_length=99, overlong="refuse"):
    return Shape(testing.byte_tokenizer(), "all", max_length, overlong)


def test_rows_come_in_order_with_their_places_and_weights():
    told = []
    made = list(examples([_row(1), _row(2)], _shape(), Counter(), told.append))
    assert [(row.where, row.weight) for row in made] == [("f:1", 0.5), ("f:2", 1.0)]
    assert told == [1, 1]


def test_all_rows_that_cannot_be_used_are_named_together():
    bad = DataError("No.", where="f:2")
    found = [_row(1), bad, _row(3, "long " * 50)]
    with pytest.raises(DataError, match=r"2 problems[\s\S]*f:2[\s\S]*f:3"):
        list(examples(found, _shape(), Counter()))


@pytest.mark.parametrize(("choice", "rows"), [("drop", 1), ("truncate", 2)])
def test_what_becomes_of_long_rows_is_counted(choice, rows):
    outcome = Counter()
    long = Conversation(
        (Message("user", "x" * 200), Message("assistant", "12 mm")), "f:2"
    )
    made = list(examples([_row(1), long], _shape(overlong=choice), outcome))
    assert len(made) == rows
    assert sum(outcome.values()) == 1
    assert {row.answer for row in made} == {"12 mm"}


def test_a_file_of_which_nothing_is_left_is_refused():
    with pytest.raises(DataError, match="Every row is longer"):
        list(examples([_row(1)], _shape(5, "drop"), Counter()))
