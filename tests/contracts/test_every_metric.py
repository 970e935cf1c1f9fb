"""What every member of METRICS owes its readers."""

import numpy as np
import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import METRICS, choose
from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.evaluation.moved import Moved

KNOWN = {
    "nll": (2.0, "nats/token"),
    "perplexity": (np.exp(2.0), "per token"),
    "token_accuracy": (0.7, "fraction"),
    "exact_match": (0.5, "fraction"),
    "entropy": (0.5, "nats/token"),
    "generated_exact_match": (0.5, "fraction"),
    "contains": (0.5, "fraction"),
    "numeric:tolerance=0.5": (1.0, "fraction"),
    "regex:pattern=[\\d.]+": (0.5, "fraction"),
    "json": (0.5, "fraction"),
    "format_valid": (1.0, "fraction"),
    "length_ratio": (1.25, "ratio"),
    "end_of_turn": (0.5, "fraction"),
    "refusal": (0.0, "fraction"),
    "avg_at_n": (0.25, "fraction"),
    "pass_at_k:k=2": (0.5, "fraction"),
    "distinct_answers": (0.75, "fraction"),
    "distinct_ngrams:n=1": (0.8, "fraction"),
    "choices": (0.5, "fraction"),
    "drift_kl": (0.3, "nats/token"),
    "drift_k3": (0.7, "nats/token"),
    "drift_nll": (0.1, "nats/token"),
}
EVEN = {"numeric:tolerance=0.5", "format_valid", "refusal"}
"""Metrics that are the same for both rows of the evidence: they have no spread."""


def _row(nll, right, exact, answer, written, drawn):
    tokens = 4 if nll == 6 else 6
    choices = ('{"a": 1}', '{"a": 2}')
    return (
        Example((1,) * 5, ((2, 5),), "f:1", answer=answer, choices=choices),
        RowScore(nll, 1.0, tokens, right, exact=exact, entropy=nll / 4),
        Answer(written, 1 if exact else 4, ended=exact),
        [Answer(text, 1, ended=True) for text in drawn],
        Moved(nll * 0.15, nll * 0.35, nll * 0.05, tokens),
    )


def _evidence(copies=1, backward=False):
    rows = [
        _row(6.0, 1, False, '{"a": 1}', '{"a": 1.5}', ["x", "x"]),
        _row(14.0, 6, True, '{"a": 2}', ' {"a": 2}\n', ['{"a":3}', '{"a": 2}']),
    ] * copies
    columns = zip(*(rows[::-1] if backward else rows), strict=True)
    return Evidence(*map(list, columns), score_options=_second_is_likelier)


def _second_is_likelier(options):
    scores = [RowScore(nll, 1.0, 2, 0, exact=False) for nll in (3.0, 2.0)]
    return [scores for _ in options]


def _compute(name):
    (gauge,) = choose([name]).values()
    return lambda known: gauge.summarise(gauge.per_row(known))


def test_every_member_has_a_known_value_here():
    assert {name.partition(":")[0] for name in KNOWN} == set(METRICS)


@pytest.mark.parametrize("name", KNOWN)
def test_the_value_and_its_unit_are_right(name):
    metric = _compute(name)(_evidence())
    assert metric.value == pytest.approx(KNOWN[name][0])
    assert metric.unit == KNOWN[name][1]
    assert metric.n == 2
    assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize("name", KNOWN)
def test_the_order_of_rows_does_not_matter(name):
    compute = _compute(name)
    assert compute(_evidence(5)).value == pytest.approx(
        compute(_evidence(5, backward=True)).value
    )


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in EVEN])
def test_the_standard_error_shrinks_with_n(name):
    compute = _compute(name)
    few, many = compute(_evidence(4)), compute(_evidence(64))
    assert few.stderr / many.stderr == pytest.approx(4, rel=0.1)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("name", KNOWN)
def test_every_row_has_its_value(name):
    (gauge,) = choose([name]).values()
    values = gauge.per_row(_evidence(3))
    assert len(values.totals) == 6
    assert values.counts is None or len(values.counts) == 6
    half = gauge.summarise(values.at([0, 2, 4]))
    assert half.n == 3


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_is_stated(name):
    assert METRICS[name].better in ("higher", "lower", "near 1", "neither")


def test_what_costs_more_than_one_pass_is_measured_only_by_name():
    assert all(not METRICS[name].needs for name in choose(()))
    assert list(choose(["generated_exact_match"])) == ["generated_exact_match"]
