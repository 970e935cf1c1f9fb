"""What every member of METRICS owes its readers."""

import numpy as np
import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import METRICS, choose
from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.likelihood import RowScore

KNOWN = {
    "nll": (2.0, "nats/token"),
    "perplexity": (np.exp(2.0), "per token"),
    "token_accuracy": (0.7, "fraction"),
    "exact_match": (0.5, "fraction"),
    "generated_exact_match": (0.5, "fraction"),
}


def _evidence(copies=1, backward=False):
    rows = [
        (
            RowScore(nll=6.0, probability=1.0, tokens=4, correct=1, exact=False),
            "a",
            "b",
        ),
        (
            RowScore(nll=14.0, probability=3.0, tokens=6, correct=6, exact=True),
            "c",
            " c\n",
        ),
    ] * copies
    rows = rows[::-1] if backward else rows
    examples = [Example((1, 2), ((1, 2),), "f", answer=answer) for _, answer, _ in rows]
    written = [Answer(row[2], len(row[2]), ended=True) for row in rows]
    return Evidence(examples, [row[0] for row in rows], written)


def _compute(name):
    (gauge,) = choose([name]).values()
    return lambda known: gauge.summarise(gauge.per_row(known))


def test_every_member_has_a_known_value_here():
    assert set(KNOWN) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_the_value_and_its_unit_are_right(name):
    metric = _compute(name)(_evidence())
    assert metric.value == pytest.approx(KNOWN[name][0])
    assert metric.unit == KNOWN[name][1]
    assert metric.n == 2
    assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_does_not_matter(name):
    compute = _compute(name)
    assert compute(_evidence(5)).value == pytest.approx(
        compute(_evidence(5, backward=True)).value
    )


@pytest.mark.parametrize("name", METRICS)
def test_the_standard_error_shrinks_with_n(name):
    compute = _compute(name)
    few, many = compute(_evidence(4)), compute(_evidence(64))
    assert few.stderr / many.stderr == pytest.approx(4, rel=0.1)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_is_stated(name):
    assert METRICS[name].better in ("higher", "lower")


def test_what_costs_generation_is_measured_only_by_name():
    assert "generated_exact_match" not in choose(())
    assert list(choose(["generated_exact_match"])) == ["generated_exact_match"]
    with pytest.raises(ConfigError, match="Did you mean 'perplexity'"):
        choose(["perplexty"])
