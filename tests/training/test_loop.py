import os
import signal

import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings, OptimizerSettings, TrainingSettings
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper

EXAMPLES = [Example((1, 2, 3, n, 4), ((2, 5),), "f:1") for n in range(10, 30)]


def _split():
    model = testing.tiny_model()
    mx.random.seed(0)
    adapters.attach(model, AdapterSettings(rank=2, layers="last:1"))
    return SplitModel(model)


def _run(record, split=None, objective="sft", **changes):
    settings = TrainingSettings(**{"steps": 6, "batch_size": 4, **changes})
    optimization = OptimizerSettings()
    split, objective = split or _split(), build({"name": objective})
    stepper = Stepper(
        split,
        objective,
        optimizers.make(optimization),
        References(split, objective),
        token_budget=2048,
        clip_norm=1.0,
    )
    return loop.run(stepper, EXAMPLES, settings, optimization, seed=0, record=record)


def test_epochs_and_steps_say_how_long():
    assert loop.num_steps(TrainingSettings(epochs=2, batch_size=16), 20) == 4
    assert loop.num_steps(TrainingSettings(epochs=0.5, batch_size=4), 20) == 3
    assert loop.num_steps(TrainingSettings(epochs=0.01), 20) == 1
    assert loop.num_steps(TrainingSettings(steps=7), 20) == 7


def test_every_step_is_recorded_with_the_true_nll_beside_the_loss():
    seen = []
    outcome = _run(seen.append)
    assert outcome == loop.Outcome(6)
    assert [record.step for record in seen] == [1, 2, 3, 4, 5, 6]
    assert all(record.loss == pytest.approx(record.nll) for record in seen)
    assert all(record.ess == pytest.approx(1.0) for record in seen)
    assert all(0 < record.mean_p < 1 and record.tokens == 12 for record in seen)
    assert all(record.peak_bytes > 0 for record in seen)


def test_a_staged_objective_is_sft_first_and_itself_afterwards():
    seen = []
    _run(seen.append, objective="dft:schedule=staged", steps=6)
    shares = [record.weight / record.tokens for record in seen]
    assert shares[:3] == pytest.approx([1, 1, 1])
    assert all(share < 0.1 for share in shares[3:])
    assert all(record.loss < record.nll for record in seen[3:])


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_ends_the_run_after_the_step_at_hand(kind):
    before = signal.getsignal(kind)
    seen = []

    def record(step):
        seen.append(step)
        if len(seen) == 2:
            os.kill(os.getpid(), kind)

    assert _run(record) == loop.Outcome(2, interrupted=True)
    assert len(seen) == 2
    assert signal.getsignal(kind) is before


def test_a_run_that_stays_non_finite_is_ended_and_says_so():
    split = _split()
    name = "model.layers.2.self_attn.q_proj.lora_a"
    split.model.load_weights([(name, mx.full((24, 2), float("nan")))], strict=False)
    seen = []
    outcome = _run(seen.append, split, steps=20)
    assert outcome == loop.Outcome(loop.MOST_SKIPPED, diverged=True)
    assert all(record.skipped for record in seen)


def test_dropout_is_a_function_of_seed_and_step_not_of_what_was_drawn_before():
    def losses(draws):
        model = testing.tiny_model()
        mx.random.seed(0)
        adapters.attach(model, AdapterSettings(rank=2, layers="all", dropout=0.5))
        seen = []

        def record(step):
            seen.append(step.loss)
            mx.eval(*(mx.random.normal((1,)) for _ in range(draws)))

        _run(record, SplitModel(model))
        return seen

    assert losses(1) == losses(50)


def test_step_seeds_differ_between_steps_and_between_nearby_seeds():
    seeds = {loop.step_seed(seed, step) for seed in range(20) for step in range(500)}
    assert len(seeds) == 20 * 500
