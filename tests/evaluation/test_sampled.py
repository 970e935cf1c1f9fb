from itertools import combinations

import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import choose
from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.sampled import pass_rate


@pytest.mark.parametrize("num", [1, 4, 7])
def test_pass_at_k_is_the_share_of_all_draws_of_k_with_a_right_one(num):
    for right in range(num + 1):
        marks = [True] * right + [False] * (num - right)
        for k in range(1, num + 1):
            draws = [any(draw) for draw in combinations(marks, k)]
            wanted = sum(draws) / len(draws)
            assert pass_rate(num, right, k) == pytest.approx(wanted, abs=1e-12)


def _known(*drawn):
    rows = [Example((1, 2), ((1, 2),), "f:1", answer="4") for _ in drawn]
    samples = [[Answer(text, 1, ended=True) for text in texts] for texts in drawn]
    return Evidence(rows, (), (), samples)


def _values(name, known):
    (gauge,) = choose([name]).values()
    return gauge.per_row(known)


def test_each_row_counts_by_its_own_samples():
    known = _known(["4", "4.2", "x", "x"], ["5", "5", "5", "5"])
    assert _values("avg_at_n", known).totals == [0.25, 0]
    near = "avg_at_n:by=numeric,tolerance=0.5"
    assert _values(near, known).totals == [0.5, 0]
    assert _values("pass_at_k:k=4", known).totals == [1, 0]
    assert _values("distinct_answers", known).totals == [0.75, 0.25]


def test_runs_of_words_are_counted_within_answers():
    values = _values("distinct_ngrams:n=2", _known(["a b c", "a b", "d"]))
    assert (values.totals, values.counts) == ([2], [3])


def test_more_tries_than_samples_are_refused():
    with pytest.raises(ConfigError, match="Pass --samples 5 or more"):
        _values("pass_at_k:k=5", _known(["4"] * 4))
