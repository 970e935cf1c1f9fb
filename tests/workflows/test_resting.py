"""A laptop whose battery runs low or that gets too hot in the middle of a run."""

import os
import signal

import pytest

from mlx_rsft import config, machine, power, records
from mlx_rsft.errors import Interrupted
from mlx_rsft.machine import Awake
from mlx_rsft.power import Power
from mlx_rsft.training import checkpoint
from mlx_rsft.workflows import resting, train
from mlx_rsft.workflows.resting import Rests
from mlx_rsft.workflows.spent import Clock, Spent

from .conftest import Listening, outcome, short_run

LOW, FULL, HOT = Power(battery=12), Power(battery=90), Power(heat="it is too hot")


class Laptop:
    """Says one thing after another when it is asked how it stands; the last for good."""

    def __init__(self, monkeypatch, *states):
        self.states, self.asked = list(states), 0
        monkeypatch.setattr(power, "now", self.now)
        monkeypatch.setattr(resting, "LOOK_EVERY_S", 0.0)
        monkeypatch.setattr(resting, "AGAIN_AFTER_S", 0.001)

    def now(self):
        self.asked += 1
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture
def trained(tmp_path, tiny_folder, tiny_data):
    """Trains; gives the run's folder and what was said."""

    def go(name, listener=None, **changes):
        more = {"training__steps": 6, "training__checkpoint_every": 4, **changes}
        settings = short_run(tiny_folder, tiny_data, objective__name="sft", **more)
        listener, folder = listener or Listening(), tmp_path / name
        train.train(train.prepare(settings, folder, listener), folder, listener)
        return folder, listener.notes

    go.path = tmp_path
    return go


def _paused(folder):
    steps = records.read_lines(folder / "steps.jsonl")
    return {step["step"]: step["paused"] for step in steps if "paused" in step}


def test_a_run_waits_for_the_charger_and_is_the_same_run_to_the_byte(
    trained, monkeypatch
):
    plain, _ = trained("plain")
    laptop = Laptop(monkeypatch, FULL, FULL, LOW, LOW, LOW, FULL)
    folder, notes = trained("run")
    assert laptop.asked == 2 + 4 + 2
    assert list(_paused(folder)) == [4]
    assert _paused(folder)[4] == "0 s, because the battery is at 12 %, below 20 %"
    assert any("waits after step 3, which is saved: the battery" in n for n in notes)
    assert "goes on after 0 s." in notes
    assert outcome(folder) == outcome(plain)


def test_it_waits_in_heat_whatever_the_battery_and_never_where_it_is_told_not_to(
    trained, monkeypatch
):
    Laptop(monkeypatch, HOT, HOT, Power())
    folder, _ = trained("hot")
    assert _paused(folder) == {2: "0 s, because it is too hot"}
    laptop = Laptop(monkeypatch, LOW)
    folder, _ = trained("never", training__battery_floor=0)
    assert laptop.asked == 0
    assert _paused(folder) == {}
    Laptop(monkeypatch, LOW)
    folder, _ = trained("lower", training__battery_floor=12)
    assert _paused(folder) == {}


def test_what_is_done_is_saved_before_the_wait_and_a_cut_there_changes_nothing(
    trained, monkeypatch
):
    plain, _ = trained("plain")
    run = trained.path / "run" / "checkpoints"
    seen = []

    class Dying(Laptop):
        """Says that it is low once, and dies when it is asked again."""

        def now(self):
            if self.asked == 3:
                seen.extend(
                    checkpoint.step_of(place) for place in checkpoint.found(run)
                )
                raise KeyboardInterrupt
            return super().now()

    Dying(monkeypatch, FULL, FULL, LOW)
    with pytest.raises(Interrupted):
        trained("run")
    assert seen == [0, 3]
    Laptop(monkeypatch, FULL)
    job = train.prepare_again(config.resolve([]), run.parent, Listening())
    train.train(job, run.parent, Listening())
    assert outcome(run.parent) == outcome(plain)


def test_who_stops_a_run_that_waits_is_heard_at_once(trained, monkeypatch):
    laptop = Laptop(monkeypatch, FULL, LOW)
    monkeypatch.setattr(resting, "AGAIN_AFTER_S", 60.0)

    class Impatient(Listening):
        def note(self, text):
            super().note(text)
            if text.startswith("waits"):
                signal.setitimer(signal.ITIMER_REAL, 0.05)

    heard = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        impatient = Impatient()
        with pytest.raises(Interrupted, match="Stopped after 2 of 6 steps"):
            trained("run", impatient)
    finally:
        signal.signal(signal.SIGALRM, heard)
    assert laptop.asked == 2
    assert not any(note.startswith("goes on") for note in impatient.notes)


def test_the_wait_is_no_part_of_training_and_the_machine_may_sleep_meanwhile(
    monkeypatch,
):
    class Held:
        ended = False

        def terminate(self):
            self.ended = True

        def wait(self):
            assert self.ended

    holders = []
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    awake = Awake(lambda _: holders.append(Held()) or holders[-1])
    awake.hold()
    seen = []
    laptop = Laptop(monkeypatch, LOW, LOW, FULL)
    monkeypatch.setattr(resting, "AGAIN_AFTER_S", 0.05)
    real = laptop.now
    monkeypatch.setattr(power, "now", lambda: seen.append(awake.is_held) or real())
    clock = Clock(Spent())
    rests = Rests(20, clock, awake, Listening())
    rests.between(1, lambda: None)
    spent = clock.spent()
    assert spent.seconds >= 0.1 > spent.training
    assert seen == [True, False, False]
    assert awake.is_held
    assert len(holders) == 2


def test_the_machine_is_asked_at_most_every_so_often(monkeypatch):
    laptop = Laptop(monkeypatch, FULL)
    monkeypatch.setattr(resting, "LOOK_EVERY_S", 60.0)
    now = [1000.0]
    monkeypatch.setattr(resting.time, "monotonic", lambda: now[0])
    rests = Rests(20, Clock(Spent()), Awake(), Listening())
    for step in range(1, 100):
        rests.between(step, lambda: None)
        now[0] += 7.0
    assert laptop.asked == 1 + 98 // 9


def test_listeners_are_put_back_after_a_wait(monkeypatch):
    Laptop(monkeypatch, LOW, FULL)
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    Rests(20, Clock(Spent()), Awake(), Listening()).between(1, lambda: None)
    after = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    assert after == before
