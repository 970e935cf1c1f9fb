import pytest

from mlx_rsft.settings import OptimizerSettings
from mlx_rsft.training.optimizer import learning_rate


def _rates(count=100, **settings):
    chosen = OptimizerSettings(learning_rate=1.0, **settings)
    return [learning_rate(step, count, chosen) for step in range(count)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_to_its_peak_and_never_reaches_zero(schedule):
    rates = _rates(warmup=0.1, schedule=schedule)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert 0 < rates[0] < 0.2
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) > 0


def test_each_schedule_ends_where_it_should():
    assert _rates(warmup=0.0, schedule="constant")[-1] == 1.0
    assert _rates(warmup=0.0, schedule="linear")[50] == pytest.approx(0.5)
    assert _rates(warmup=0.0, schedule="cosine")[50] == pytest.approx(0.5)
    assert _rates(warmup=0.0, schedule="cosine")[-1] < 0.001


def test_one_step_is_a_schedule_too():
    assert _rates(1, warmup=0.1, schedule="cosine")[0] > 0
