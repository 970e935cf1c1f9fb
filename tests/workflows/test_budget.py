import random

import pytest

from mlx_rsft.data.batching import window
from mlx_rsft.workflows import budget
from mlx_rsft.workflows.budget import Pace, Size, Work, choose, seconds, smallest

ARMS = ("sft", "power", "dft")


def _some(draw):
    pace = Pace(
        load=draw.uniform(0, 20),
        fill=draw.choice([0.0, draw.uniform(0, 0.3)]),
        step={arm: draw.uniform(0.1, 3) for arm in ARMS},
        score=draw.uniform(0.001, 0.2),
        side=draw.uniform(0, 20),
        ending=draw.uniform(0, 40),
    )
    valid = draw.choice([0, 48])
    work = Work(draw.randint(10, 400), 16, valid or 40, valid, 4, draw.randint(10, 300))
    return work, pace


@pytest.mark.parametrize("seed", range(40))
def test_the_size_is_the_one_that_trying_all_of_them_finds(seed):
    draw = random.Random(seed)
    work, pace = _some(draw)
    wanted, most_s = draw.choice([5, 45, 80]), draw.uniform(30, 3000)
    steps_kept = min(wanted, 60)
    wishes = [(3, 5, steps_kept), (3, 3, steps_kept), (2, 3, steps_kept)]
    wishes.append((2, 1, min(wanted, 20)))
    best = None
    for arms, seeds, least in wishes:
        fitting = [
            Size(ARMS[:arms], seeds, steps)
            for steps in range(1, wanted + 1)
            if steps >= least
            and seconds(Size(ARMS[:arms], seeds, steps), work, pace) <= most_s
        ]
        if fitting and best is None:
            best = max(fitting, key=lambda size: size.steps)
    assert choose(ARMS, wanted, work, pace, most_s) == best


def test_all_outcomes_of_sizing_do_occur():
    found = set()
    for seed in range(400):
        draw = random.Random(seed)
        work, pace = _some(draw)
        size = choose(ARMS, 80, work, pace, draw.uniform(30, 3000))
        found.add((len(size.arms), size.seeds) if size else None)
    assert found == {(3, 5), (3, 3), (2, 3), (2, 1), None}


def test_more_time_never_makes_less_of_it():
    work, pace = _some(random.Random(7))
    ranks = [(3, 5), (3, 3), (2, 3), (2, 1)]
    last = None
    for most_s in range(10, 6000, 50):
        size = choose(ARMS, 80, work, pace, most_s)
        if size is None:
            assert last is None
            continue
        mark = (-ranks.index((len(size.arms), size.seeds)), size.steps)
        assert last is None or mark >= last
        last = mark
    assert last == (0, 80)


@pytest.mark.parametrize("seed", range(10))
def test_the_time_is_that_of_doing_one_thing_after_another(seed):
    draw = random.Random(seed)
    work, pace = _some(draw)
    size = Size(ARMS[: draw.choice([2, 3])], draw.choice([1, 3, 5]), 30)
    clock = pace.load + pace.ending + pace.side
    read = set()
    for one in range(size.seeds):
        for step in range(size.steps):
            read |= set(window(step, work.train, work.batch, one))
    known = {("valid", n) for n in range(work.valid)}
    tests = {("test", n) for n in range(work.tests)}
    clock += pace.fill * len(read | known | tests)
    clock += pace.score * (work.known + work.tests)
    for arm in size.arms:
        clock += pace.side
        for _ in range(size.seeds):
            clock += sum(pace.step[arm] for _ in range(size.steps))
            clock += work.looks * work.valid * pace.score
            clock += work.tests * pace.score
    told = seconds(size, work, pace)
    most_read = min(work.train, size.seeds * size.steps * work.batch)
    assert told == pytest.approx(clock + pace.fill * (most_read - len(read)))
    assert told >= clock - 1e-9


def test_the_smallest_is_no_larger_than_what_is_wanted():
    assert smallest(ARMS, 80) == Size(("sft", "power"), 1, 20)
    assert smallest(ARMS[:2], 7) == Size(("sft", "power"), 1, 7)


def test_there_are_never_two_seeds():
    assert {seeds for _, seeds in budget.levels(ARMS)} == {5, 3, 1}
