from itertools import product

import pytest

from mlx_rsft import stats
from mlx_rsft.evaluation import ratings
from mlx_rsft.evaluation.ratings import OURS, THEIRS, Sample


def _samples(count=40, same=0):
    return [
        Sample("test", f"f:{n}", f"q{n}", "r", f"ours {n}", f"theirs {n}")
        for n in range(count)
    ] + [Sample("test", f"s:{n}", "q", "r", "x", " x\n") for n in range(same)]


def test_a_sheet_shows_each_pair_once_on_random_sides_by_seed():
    pairs = ratings.blind(_samples(same=5), 100, seed=0)
    assert [pair.number for pair in pairs] == list(range(1, 41))
    assert {pair.where for pair in pairs} == {f"f:{n}" for n in range(40)}
    assert [pair.where for pair in pairs] != [f"f:{n}" for n in range(40)]
    for pair in pairs:
        answers = (pair.answer_a, pair.answer_b)
        ours = answers[0 if pair.a == OURS else 1]
        assert ours.startswith("ours")
        assert {a.split()[0] for a in answers} == {"ours", "theirs"}
    assert [pair.a for pair in pairs].count(OURS) == 20  # neither side is favoured
    assert ratings.blind(_samples(), 100, seed=0) == ratings.blind(_samples(), 100, 0)
    assert ratings.blind(_samples(), 100, seed=1) != ratings.blind(_samples(), 100, 0)
    assert len(ratings.blind(_samples(), 7, seed=0)) == 7


def test_marks_are_counted_for_the_model_behind_them():
    sides = {1: OURS, 2: THEIRS, 3: OURS, 4: THEIRS}
    marks = [(1, "A"), (2, "A"), (3, "="), (4, "B")]
    assert ratings.unblind(marks, sides) == ratings.Verdict(2, 1, 1)


def test_the_majority_of_raters_counts_once():
    sides = {1: OURS, 2: OURS}
    marks = [(1, "A"), (1, "A"), (1, "B"), (2, "A"), (2, "B")]
    assert ratings.unblind(marks, sides) == ratings.Verdict(1, 0, 1)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 0), (5, 2), (4, 4), (1, 7)])
def test_the_sign_test_is_that_of_all_outcomes_alike(wins, losses):
    decided = wins + losses
    extreme = abs(wins - losses)
    outcomes = [sum(flips) for flips in product((1, -1), repeat=decided)]
    wanted = sum(abs(total) >= extreme for total in outcomes) / len(outcomes)
    assert stats.sign_test(wins, losses) == pytest.approx(wanted)


def test_nothing_decided_has_no_share():
    record = ratings.Verdict(0, 0, 3).as_record()
    assert (record["win_share"], record["p_value"], record["rated"]) == (None, 1.0, 3)
