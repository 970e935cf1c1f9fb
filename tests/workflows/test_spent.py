import pytest

from mlx_rsft import energy
from mlx_rsft.workflows.spent import Clock, Spent


@pytest.fixture
def counter(monkeypatch):
    """What the processor is said to have taken, microjoules."""
    held = {"intel-rapl:0": 0}
    monkeypatch.setattr(energy, "_readings", lambda _folder: dict(held))
    return held


def test_a_run_that_goes_on_adds_to_what_was_spent_before(counter):
    clock = Clock(Spent(10.0, 8.0, 3.0))
    counter["intel-rapl:0"] = 2_000_000
    with clock.aside():
        counter["intel-rapl:0"] = 7_000_000
    spent = clock.spent()
    assert spent.joules == 5.0
    assert spent.seconds >= spent.training + 2.0 >= 10.0


def test_joules_that_were_unknown_once_stay_unknown(counter):
    assert Clock(Spent(1.0, 1.0, None)).spent().joules is None
    clock = Clock(Spent())
    counter.clear()
    assert clock.spent().joules is None
