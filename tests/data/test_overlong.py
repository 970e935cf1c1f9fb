import numpy as np
import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.data.overlong import OVERLONG
from mlx_rsft.errors import DataError
from mlx_rsft.keys import KEYS

BOS = frozenset({1})
ROW = Example((1, *range(10, 20)), ((3, 5), (8, 11)), "f:3")


def _supervised(row):
    return [row.tokens[a:b] for a, b in row.spans]


def test_every_choice_can_be_set():
    choices = KEYS["data.overlong"].field.metadata["choices"]
    assert choices == tuple(OVERLONG)


def test_refuse_names_the_row_and_the_ways_out():
    with pytest.raises(DataError, match="11 tokens, more than the 9") as caught:
        OVERLONG["refuse"](ROW, 9, BOS)
    assert caught.value.where == "f:3"
    assert "--overlong" in caught.value.hint
    assert caught.value.fault == "too long"


def test_drop_leaves_the_row_out():
    assert OVERLONG["drop"](ROW, 9, BOS) is None


def test_truncate_takes_the_earliest_context_and_keeps_what_begins_a_text():
    row = OVERLONG["truncate"](ROW, 10, BOS)
    assert row.tokens == (1, *range(11, 20))
    assert _supervised(row) == _supervised(ROW)
    bare = OVERLONG["truncate"](ROW, 10, frozenset())
    assert bare.tokens == tuple(range(10, 20))
    assert _supervised(bare) == _supervised(ROW)


def test_an_answer_that_loses_tokens_or_all_before_it_is_no_longer_trained():
    row = OVERLONG["truncate"](ROW, 8, BOS)
    assert row.tokens == (1, *range(13, 20))
    assert _supervised(row) == [(17, 18, 19)]
    bare = OVERLONG["truncate"](ROW, 9, BOS)  # nothing but the start is before one
    assert _supervised(bare) == [(17, 18, 19)]


def test_an_answer_is_never_cut_whatever_the_length():
    rng = np.random.default_rng(0)
    for _ in range(300):
        length = int(rng.integers(4, 40))
        start = int(rng.integers(1, length))
        end = int(rng.integers(start + 1, length + 1))
        tokens = tuple(rng.integers(1, 4, length).tolist())
        row, most = Example(tokens, ((start, end),), "f:1"), int(rng.integers(2, 40))
        if most >= length:
            continue
        try:
            cut = OVERLONG["truncate"](row, most, BOS)
        except DataError:
            assert end - start > most - 2 or length - start > most - 2
            continue
        assert len(cut.tokens) == most
        assert _supervised(cut) == _supervised(row)
        assert cut.spans[0][0] >= 1


def test_an_answer_that_does_not_fit_is_refused_whole():
    with pytest.raises(DataError, match="answer alone"):
        OVERLONG["truncate"](ROW, 3, BOS)
