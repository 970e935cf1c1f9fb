import math

import numpy as np
import pytest

from mlx_rsft.evaluation import choose, gate
from mlx_rsft.evaluation.gate import APART, HELD, WORSE
from mlx_rsft.evaluation.values import Values

EXACT, NLL = (choose([name])[name] for name in ("exact_match", "nll"))
ROWS = 60


def _check(gauge, now, references, tolerance=None, num_checks=1):
    return gate.check(("test", gauge), now, references, tolerance, num_checks)


def _marks(right):
    return Values([1.0] * right + [0.0] * (ROWS - right))


def _nll(mean, spread=0.0, counts=4):
    rng = np.random.default_rng(0)
    values = counts * (mean + spread * rng.standard_normal(ROWS))
    return Values(values.tolist(), [counts] * ROWS)


def test_a_model_that_answers_alike_is_held():
    found = _check(EXACT, _marks(50), [_marks(50)])
    assert found.gain == 0
    assert found.low < 0 < found.high
    assert found.outcome == HELD


def test_a_point_below_the_tolerance_is_no_alarm_and_an_interval_below_is():
    assert _check(EXACT, _marks(48), [_marks(50)]).outcome == HELD
    found = _check(EXACT, _marks(20), [_marks(50)])
    assert found.outcome == WORSE
    assert found.high < -found.tolerance
    assert _check(EXACT, _marks(60), [_marks(50)]).outcome == HELD


def test_less_nll_is_better_and_the_default_tolerance_is_a_share_of_it():
    pair = [_nll(1.0), _nll(1.0)]
    assert _check(NLL, _nll(1.02), pair).outcome == HELD
    found = _check(NLL, _nll(1.1), pair)
    assert found.tolerance == pytest.approx(0.05)
    assert found.gain == pytest.approx(-0.1)
    assert found.outcome == WORSE
    assert _check(NLL, _nll(1.1), pair, tolerance=0.2).outcome == HELD


def test_one_reference_alone_says_nothing_of_seeds_so_more_is_tolerated():
    found = _check(NLL, _nll(1.1), [_nll(1.0)])
    assert found.tolerance == pytest.approx(0.5)
    assert found.outcome == HELD
    assert _check(NLL, _nll(1.6), [_nll(1.0)]).outcome == WORSE
    assert _check(EXACT, _marks(50), [_marks(50)]).tolerance == 0.05


def test_references_that_differ_widen_the_interval():
    close = [_nll(1.0), _nll(1.001), _nll(0.999)]
    apart = [_nll(1.0), _nll(1.2), _nll(0.8)]
    assert _check(NLL, _nll(1.3), close).outcome == WORSE
    assert _check(NLL, _nll(1.3), apart).outcome == HELD


def test_more_that_is_watched_makes_each_alarm_harder():
    one = _check(EXACT, _marks(40), [_marks(50)])
    many = _check(EXACT, _marks(40), [_marks(50)], num_checks=20)
    assert many.high > one.high


def test_other_tokens_are_not_compared_and_no_number_is_an_alarm():
    assert _check(NLL, _nll(9.0, counts=5), [_nll(1.0)]).outcome == APART
    broken = Values([math.nan] * ROWS, [4] * ROWS)
    assert _check(NLL, broken, [_nll(1.0)]).outcome == WORSE
    assert _check(NLL, _nll(1.0), [broken]).outcome == APART


def test_seeds_that_differ_alarm_in_no_more_than_five_of_a_hundred_cases():
    """Trainings differ in level and in rows; three references, no tolerance."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal(ROWS)

    def training():
        level, own = rng.normal(0, 0.1), rng.normal(0, 0.3, ROWS)
        return Values((1 + rows + level + own).tolist(), [1] * ROWS)

    cases = 400
    alarms = sum(
        _check(NLL, training(), [training() for _ in range(3)], 0.0).outcome == WORSE
        for _ in range(cases)
    )
    assert alarms <= 0.05 * cases
