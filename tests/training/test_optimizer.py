import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.settings import (
    OPTIMIZERS,
    SCHEDULES,
    AdapterSettings,
    OptimizerSettings,
)
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.optimizer import learning_rate

LORA, FULL = AdapterSettings(), AdapterSettings(method="full")


def _rates(count=100, **settings):
    chosen = OptimizerSettings(learning_rate=1.0, **settings)
    return [learning_rate(step, count, chosen) for step in range(count)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_rate_rises_to_its_peak_and_never_reaches_zero(schedule, count):
    rates = _rates(count, warmup=0.1, schedule=schedule)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert max(rates) <= 1
    if count == 100:
        assert rates[10] == 1.0
        assert 0 < rates[0] < 0.2


def test_each_schedule_ends_where_it_should():
    assert _rates(warmup=0.0, schedule="constant")[-1] == 1.0
    assert _rates(warmup=0.0, schedule="linear")[50] == pytest.approx(0.5)
    assert _rates(warmup=0.0, schedule="cosine")[50] == pytest.approx(0.5)
    assert _rates(warmup=0.0, schedule="cosine")[-1] < 0.001


def test_wsd_stays_at_its_peak_and_then_falls_in_a_line():
    rates = _rates(warmup=0.1, schedule="wsd", decay=0.4)
    assert set(rates[10:61]) == {1.0}
    np.testing.assert_allclose(np.diff(rates[60:]), -1 / 40)
    assert rates[-1] == pytest.approx(1 / 40)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_a_schedule_may_end_above_zero(schedule):
    rates = _rates(warmup=0.0, schedule=schedule, final=0.25)
    assert max(rates) == 1.0
    assert 0.25 < rates[-1] < 0.30


def test_one_step_is_a_schedule_too():
    assert _rates(1, warmup=0.1, schedule="cosine")[0] > 0


# One step by hand, from the formulas in the papers; moments start at zero.
def _by_hand(name, weight, grad, rate, decay):
    sign, shrunk = np.sign(grad), weight * (1 - rate * decay)
    if name in ("adam", "adamw"):  # bias-corrected, the first step is g / (|g| + eps)
        return shrunk - rate * grad / (np.abs(grad) + 1e-8)
    if name == "lion":
        return shrunk - rate * sign
    if name == "sgd":
        return weight - rate * (grad + decay * weight)
    square = grad**2 + 1e-30
    rows, columns = square.mean(1, keepdims=True), square.mean(0, keepdims=True)
    update = grad / np.sqrt(rows / rows.mean() * columns)
    return shrunk - rate * update / max(1.0, np.sqrt((update**2).mean()))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "sgd", "adafactor"])
def test_the_first_step_is_that_of_the_formula(name, decay):
    if name == "adam" and decay:
        return
    rng = np.random.default_rng(0)
    layer = nn.Linear(3, 4, bias=False)
    weight, grad = np.array(layer.weight), rng.normal(size=(4, 3)).astype(np.float32)
    optimizer = optimizers.make(OptimizerSettings(name=name, weight_decay=decay))
    optimizer.learning_rate = 0.01
    optimizer.update(layer, {"weight": mx.array(grad)})
    wanted = _by_hand(name, weight, grad, 0.01, decay)
    np.testing.assert_allclose(np.array(layer.weight), wanted, rtol=0, atol=1e-6)


def test_the_first_step_of_muon_is_an_orthogonal_matrix():
    stack = _Blocks()
    before = np.array(stack.layers[0].weight)
    optimizer = optimizers.make(OptimizerSettings(name="muon"))
    optimizer.learning_rate = 0.01
    grad = mx.random.normal((6, 4), key=mx.random.key(0))
    optimizer.update(stack, {"layers": [{"weight": grad}]})
    move = (before - np.array(stack.layers[0].weight)) / 0.01
    # Muon's five Newton-Schulz steps leave singular values between 0.7 and 1.2, and
    # a tall matrix is stepped sqrt(rows / columns) further.
    values = np.linalg.svd(move / np.sqrt(6 / 4), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3


class _Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 6)]
        self.embed = nn.Linear(3, 5, bias=False)


def test_muon_steps_matrices_in_blocks_and_adamw_all_else():
    stack = _Blocks()
    before = dict(tree_flatten(stack.parameters()))
    optimizer = optimizers.make(OptimizerSettings(name="muon"))
    optimizer.learning_rate = 0.01
    keys = mx.random.split(mx.random.key(1), 3)
    grads = {
        "layers": [
            {
                "weight": mx.random.normal((6, 4), key=keys[0]),
                "bias": mx.random.normal((6,), key=keys[1]),
            }
        ],
        "embed": {"weight": mx.random.normal((5, 3), key=keys[2])},
    }
    optimizer.update(stack, grads)
    after = dict(tree_flatten(stack.parameters()))
    for name, moved in after.items():
        size = np.abs(np.array(before[name] - moved))
        as_adam = np.allclose(size, 0.01, rtol=1e-3)
        assert as_adam == (name != "layers.0.weight"), name


def _task():
    """A tiny model with an adapter, and the loss of one row to learn by heart."""
    model = testing.tiny_model()
    mx.random.seed(0)
    adapters.attach(model, AdapterSettings(rank=4, layers="all"))
    tokens = mx.arange(5, 25)[None]

    def loss(row):
        return nn.losses.cross_entropy(model(row[:, :-1]), row[:, 1:]).mean()

    return model, nn.value_and_grad(model, loss), tokens


RATES = {"sgd": 0.2, "lion": 1e-3, "muon": 1e-2}


@pytest.mark.parametrize("lora_plus", [1.0, 4.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name, lora_plus):
    model, slope, tokens = _task()
    optimizer = optimizers.make(OptimizerSettings(name=name, lora_plus=lora_plus))
    losses = []
    for _ in range(8):
        value, grads = slope(tokens)
        losses.append(value.item())
        optimizer.learning_rate = RATES.get(name, 1e-2)
        optimizer.update(model, grads)
        mx.eval(model.trainable_parameters(), optimizer.state)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lora_plus_steps_lora_b_that_much_further_and_nothing_else(name):
    moves = []
    for ratio in (1.0, 16.0):
        model, slope, tokens = _task()
        before = dict(tree_flatten(model.trainable_parameters()))
        model.load_weights(
            [(n, p + 0.1 * mx.ones_like(p)) for n, p in before.items()], strict=False
        )
        before = dict(tree_flatten(model.trainable_parameters()))
        optimizer = optimizers.make(OptimizerSettings(name=name, lora_plus=ratio))
        optimizer.learning_rate = 2.0**-10
        optimizer.update(model, slope(tokens)[1])
        after = dict(tree_flatten(model.trainable_parameters()))
        moves.append({n: np.array(after[n] - before[n]) for n in before})
    plain, faster = moves
    for step in plain:
        ratio = 16.0 if step.endswith("lora_b") else 1.0
        # The subtraction of numbers near 0.1 rounds to 1e-8.
        np.testing.assert_allclose(
            faster[step], ratio * plain[step], rtol=1e-4, atol=2e-7, err_msg=step
        )


def test_the_rate_of_a_schedule_reaches_every_group():
    optimizer = optimizers.make(OptimizerSettings(name="muon", lora_plus=16))
    optimizer.learning_rate = 0.5
    rates = [one.learning_rate.item() for one in optimizer.optimizers]
    assert rates == [8.0, 0.5, 8.0, 0.5]
    assert optimizer.learning_rate.item() == 0.5


def test_the_state_of_a_grouped_optimizer_is_put_back():
    settings = OptimizerSettings(name="muon", lora_plus=4, learning_rate=0.01)
    model, slope, tokens = _task()
    first = optimizers.make(settings)
    first.update(model, slope(tokens)[1])
    weights = dict(tree_flatten(model.trainable_parameters()))
    mx.eval(weights, first.state)
    kept = dict(tree_flatten(first.state))
    first.update(model, slope(tokens)[1])
    wanted = dict(tree_flatten(model.trainable_parameters()))
    model.load_weights(list(weights.items()), strict=False)
    second = optimizers.make(settings)
    second.state = tree_unflatten(list(kept.items()))
    second.update(model, slope(tokens)[1])
    after = dict(tree_flatten(model.trainable_parameters()))
    for name, value in wanted.items():
        assert mx.allclose(after[name], value, atol=1e-6).item(), name


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"name": "adam", "weight_decay": 0.1}, "weight_decay"),
        ({"name": "adamw", "momentum": 0.9}, "momentum"),
        ({"name": "sgd", "beta1": 0.8}, "beta1"),
        ({"name": "sgd", "eps": 1e-6}, "eps"),
        ({"name": "lion", "eps": 1e-6}, "eps"),
        ({"name": "adafactor", "beta2": 0.9}, "beta2"),
        ({"schedule": "constant", "final": 0.1}, "final"),
        ({"schedule": "cosine", "decay": 0.3}, "decay"),
        ({"schedule": "wsd", "decay": 0.6, "warmup": 0.5}, "decay"),
    ],
)
def test_what_the_optimizer_or_schedule_does_not_take_is_refused(settings, where):
    with pytest.raises(ConfigError) as caught:
        optimizers.check(OptimizerSettings(**settings), LORA)
    assert caught.value.where == f"optimizer.{where}"


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_defaults_go_with_every_optimizer_and_schedule(name, schedule):
    settings = OptimizerSettings(name=name, schedule=schedule)
    assert optimizers.check(settings, LORA) is None
    assert optimizers.check(settings, FULL) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_that_an_optimizer_takes_change_its_steps(name):
    changed = {"beta1": 0.5, "beta2": 0.7, "eps": 0.1, "momentum": 0.5}
    changed |= {"weight_decay": 0.5}
    for key in optimizers.TAKES[name]:
        settings = [OptimizerSettings(name=name, learning_rate=0.01)]
        settings.append(
            OptimizerSettings(name=name, learning_rate=0.01, **{key: changed[key]})
        )
        ends = []
        for chosen in settings:
            optimizers.check(chosen, LORA)
            stack = _Blocks()
            stack.update(tree_map(mx.ones_like, stack.parameters()))
            optimizer = optimizers.make(chosen)
            mx.random.seed(0)
            for _ in range(4):
                grads = tree_map(
                    lambda p: mx.random.normal(p.shape), stack.parameters()
                )
                optimizer.update(stack, grads)
            ends.append(
                np.concatenate([np.array(p).ravel() for _, p in tree_flatten(stack)])
            )
        assert not np.allclose(*ends, rtol=0, atol=1e-6), key


def test_full_fine_tuning_has_no_lora_b_to_speed_up():
    settings = OptimizerSettings(lora_plus=16)
    optimizers.check(settings, LORA)
    with pytest.raises(ConfigError, match="full"):
        optimizers.check(settings, FULL)
