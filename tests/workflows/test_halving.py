"""Who goes on from a rung, and who is chosen."""

from itertools import permutations

from mlx_rsft.evaluation import choose
from mlx_rsft.records import Metric
from mlx_rsft.workflows import halving
from mlx_rsft.workflows.arms import Run
from mlx_rsft.workflows.halving import Score
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.trials import Rung, Trial


def _metric(value):
    return Metric(value, "nats/token", 9, 0.1, value, value)


def _score(name, kl=0.1, diverged=False, **values):
    splits = {
        split: {"nll": _metric(nll), "token_accuracy": _metric(accuracy)}
        for split, (nll, accuracy) in values.items()
    }
    run = Run(name, 0, 1e-3, None)
    return Score(Trial(name, 1e-3), run, splits, _metric(kl), diverged)


def test_ranks_go_by_the_worst_split_then_the_next_metric_then_drift():
    gauges = list(choose(["nll", "token_accuracy"]).values())
    scores = [
        _score("good on one", valid=(0.1, 0.9), valid_x=(2.0, 0.5)),
        _score("even", valid=(1.0, 0.5), valid_x=(1.0, 0.6)),
        _score("even, surer", valid=(1.0, 0.6), valid_x=(0.5, 0.7)),
        _score("even, nearer", kl=0.05, valid=(1.0, 0.5), valid_x=(1.0, 0.9)),
        _score("far", kl=0.3, valid=(0.0, 1.0), valid_x=(0.0, 1.0)),
        _score("lost", kl=float("nan"), valid=(0.0, 1.0), valid_x=(0.0, 1.0)),
        _score("broken", diverged=True, valid=(0.0, 1.0), valid_x=(0.0, 1.0)),
    ]
    for some in list(permutations(scores))[::97]:
        names = [score.trial.arm for score in halving.ranked(some, gauges, 0.2)]
        assert names == ["even, surer", "even, nearer", "even", "good on one"]
    reasons = {score.trial.arm: score.why_out(0.2) for score in scores}
    assert reasons["broken"] == "diverged"
    assert reasons["even"] == ""
    assert "budget of 0.2" in reasons["far"]


def test_the_next_best_of_earlier_rungs_are_tried_until_one_is_within_the_budget(
    monkeypatch,
):
    tried = []
    order = ["a", "b", "c", "d"]  # the best first, and of them the first two run wild

    def attempt(stage, trial, steps, places, reporter):
        tried.append((trial.arm, steps))
        kl = steps if trial.arm in "ab" else 0.1 * steps
        return _score(trial.arm, kl, valid=(order.index(trial.arm), 0.5))

    class Told:
        gauges = choose(["nll", "token_accuracy"])

    monkeypatch.setattr(halving, "attempt", attempt)
    plan = [Rung(4, 1), Rung(2, 3), Rung(1, 9)]
    trials = [Trial(name, 1e-3) for name in reversed(order)]

    def last(budget):
        contest = halving.Contest("", trials, plan, {"valid": [0]}, budget)
        return halving.halve(Told(), contest, Silent())

    rungs = last(5.0)
    assert tried[4:] == [("a", 3), ("b", 3), ("a", 9), ("b", 9), ("c", 9)]
    assert rungs[-1][0].trial.arm == "c"
    assert last(0.5)[-1][0].why_out(0.5)  # all are over it after 9 steps
    assert tried[-1] == ("d", 9)
