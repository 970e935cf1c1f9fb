"""Arms that are alike: how often the whole decision claims that they differ.

Every arm is plain SFT of a tiny model on rows with wrong labels among them, from seeds
and orders of its own, so a claim is always an error.
"""

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import choose, differences, likelihood, verdict
from mlx_rsft.evaluation.values import Values
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings, OptimizerSettings, TrainingSettings
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper

POOL, ARMS, SEEDS, COMPARISONS = 24, 3, 3, 200
ALL_ROWS, ROWS = 160, 80
KINDS = 6
MOST_ERRORS = 16
"""Of 200 at 5 %: a larger count has a probability below 2 % (binomial)."""


def _row(kind, filler, answer):
    return Example((1, *filler, 100 + kind, 40 + answer, 2), ((5, 7),), "f")


def _rows(rng, count, first, wrong=0.0):
    """One sign tells the answer; ``first`` says where the others come from."""
    kinds = rng.integers(KINDS, size=count)
    noise = rng.random(count) < wrong
    answers = np.where(noise, rng.integers(KINDS, size=count), kinds)
    filler = rng.integers(first, first + 30, (count, 3)).tolist()
    return [
        _row(*row) for row in zip(kinds.tolist(), filler, answers.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def marks():
    """Right or wrong, per trained model and row, on two splits."""
    rng = np.random.default_rng(0)
    train = _rows(rng, 96, 130, wrong=0.3)
    tests = {"test": _rows(rng, ALL_ROWS, 130), "shifted": _rows(rng, ALL_ROWS, 170)}
    return [_trained(seed, train, tests) for seed in range(POOL)]


def _trained(seed, train, tests):
    model = testing.tiny_model()
    mx.random.seed(seed)
    adapters.attach(model, AdapterSettings(method="full", layers="all"))
    split, objective = SplitModel(model), build({"name": "sft"})
    optimization = OptimizerSettings(learning_rate=0.01)
    stepper = Stepper(
        split,
        objective,
        optimizers.make(optimization),
        References(split, objective),
        token_budget=2048,
        clip_norm=1.0,
    )
    settings = TrainingSettings(steps=15, batch_size=16)
    loop.run(
        stepper, train, settings, optimization, seed=seed, record=lambda step: None
    )
    model.eval()
    return {
        name: np.array([score.exact for score in likelihood.score(split, rows)], float)
        for name, rows in tests.items()
    }


def _decision(rng, marks):
    """One comparison of arms of different models on rows that they share."""
    models = rng.permutation(POOL)[: ARMS * SEEDS].reshape(ARMS, SEEDS)
    rows = {split: rng.permutation(ALL_ROWS)[:ROWS] for split in ("test", "shifted")}
    arms = {
        f"arm{n}": {
            split: {
                "exact_match": [
                    Values(marks[place][split][chosen].tolist()) for place in of_arm
                ]
            }
            for split, chosen in rows.items()
        }
        for n, of_arm in enumerate(models)
    }
    gauges = choose(["exact_match"])
    found = differences.differences(
        arms, "arm0", gauges, lambda split, metric: 0.1, int(rng.integers(2**31))
    )
    said = verdict.decide(found, {"shifted"}, ())
    claims = [c for c in found if verdict.is_gain(c) or verdict.is_harm(c)]
    return said.word, claims


def test_equal_arms_are_told_apart_in_at_most_5_of_100_comparisons(marks):
    rng = np.random.default_rng(1)
    words, claimed = [], 0
    for _ in range(COMPARISONS):
        word, claims = _decision(rng, marks)
        words.append(word)
        claimed += bool(claims)
    assert claimed <= MOST_ERRORS
    assert words.count("go") <= MOST_ERRORS


def test_the_models_of_this_trial_are_neither_perfect_nor_alike(marks):
    for split in ("test", "shifted"):
        shares = np.array([model[split].mean() for model in marks])
        assert 0.2 < shares.mean() < 0.95
        assert shares.std() > 0.02
