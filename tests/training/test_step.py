import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import testing
from mlx_rsft.config import AdapterSettings, OptimizerSettings
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.step import gradient, step

OBJECTIVES = [build({"name": text}).weight for text in ("sft", "dft:floor=0.1")]
# float32 sums in another order; gradients here are of the order of 1.
ROUNDING = {"rtol": 1e-4, "atol": 2e-6}


def _split(seed=0):
    model = testing.tiny_model()
    mx.random.seed(seed)
    adapters.attach(model, AdapterSettings(rank=3, layers="last:2"))
    # lora_b starts at zero, which would hide errors in the gradient of lora_a.
    flat = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(n, p + 0.1 * mx.random.normal(p.shape)) for n, p in flat], strict=False
    )
    return SplitModel(model)


def _examples(count=8, seed=0):
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        length = int(rng.integers(5, 29))
        start = int(rng.integers(1, length - 2))
        end = int(rng.integers(start + 1, length))
        tokens = tuple(rng.integers(1, 250, length).tolist())
        examples.append(Example(tokens, ((start, end),), "f:1"))
    return examples


def _flat(grads):
    return {name: np.array(grad) for name, grad in tree_flatten(grads)}


def _assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a.item(), b.item(), rtol=1e-5)
    first, second = _flat(one[1]), _flat(other[1])
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], **ROUNDING)


@pytest.mark.parametrize("weigh", OBJECTIVES)
def test_padding_never_changes_the_loss_or_the_gradient(weigh):
    split, examples = _split(), _examples()
    tight = gradient(split, [collate(examples)], weigh)
    _assert_same(tight, gradient(split, [collate(examples, width=61)], weigh))


@pytest.mark.parametrize("weigh", OBJECTIVES)
def test_one_batch_of_eight_is_four_micro_batches_of_two(weigh):
    split, examples = _split(), _examples()
    pairs = [collate(examples[n : n + 2]) for n in range(0, 8, 2)]
    _assert_same(
        gradient(split, [collate(examples)], weigh), gradient(split, pairs, weigh)
    )


@pytest.mark.parametrize("weigh", OBJECTIVES)
def test_the_gradient_is_that_of_the_whole_model_without_shortcuts(weigh):
    import mlx.nn as nn

    from mlx_rsft.objectives import TokenStats

    split, examples = _split(), _examples()
    batch = collate(examples)

    def plain(tokens):
        logits = split.model(tokens).reshape(-1, testing.VOCABULARY)
        logp = logits - mx.logsumexp(logits, -1, keepdims=True)
        chosen = logp[batch.rows_N, batch.targets_N]
        weight = mx.stop_gradient(weigh(TokenStats(chosen)))
        return -(weight * chosen).sum()

    value, grads = nn.value_and_grad(split.model, plain)(batch.tokens_BT)
    sums, found = gradient(split, [batch], weigh)
    np.testing.assert_allclose(sums.objective.item(), value.item(), rtol=1e-5)
    wanted, flat = _flat(grads), _flat(found)
    for name in wanted:
        np.testing.assert_allclose(flat[name], wanted[name], **ROUNDING)


def test_the_adapter_gradient_agrees_with_finite_differences():
    split, examples = _split(), _examples(3)
    weigh, batch = OBJECTIVES[0], collate(examples)
    sums, grads = gradient(split, [batch], weigh)
    assert sums.tokens.item() > 0
    rng = np.random.default_rng(0)
    for name, grad in tree_flatten(grads):
        direction = mx.array(rng.normal(size=grad.shape), mx.float32)
        slopes = []
        for sign in (1, -1):
            moved = _moved(split, name, sign * 2e-3 * direction)
            slopes.append(gradient(moved, [batch], weigh)[0].objective.item())
        numeric = (slopes[0] - slopes[1]) / 4e-3
        exact = (grad * direction).sum().item()
        # A loss near 50 in float32 leaves 4e-6, over a step of 4e-3 about 1e-3.
        assert numeric == pytest.approx(exact, rel=1e-2, abs=1e-2), name


def _moved(split, name, by):
    other = _split()
    flat = dict(tree_flatten(other.model.trainable_parameters()))
    other.model.load_weights([(name, flat[name] + by)], strict=False)
    return other


def _step(split, examples, **options):
    settings = OptimizerSettings(learning_rate=0.1)
    chosen = {"token_budget": 9999, "clip_norm": 0.0, **options}
    return step(split, examples, OBJECTIVES[0], optimizers.make(settings), **chosen)


def test_a_step_lowers_the_loss_and_says_what_it_saw():
    split, examples = _split(), _examples()
    first = _step(split, examples)
    assert first.applied
    assert first.num_tokens == sum(len(e.tokens) for e in examples)
    assert int(first.totals.tokens) == sum(e.num_supervised for e in examples)
    assert _step(split, examples).totals.nll < first.totals.nll


def test_a_small_token_budget_gives_the_same_step():
    examples = _examples()
    whole, cut = _split(), _split()
    a = _step(whole, examples)
    b = _step(cut, examples, token_budget=64)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-5)
    np.testing.assert_allclose(a.totals.nll, b.totals.nll, rtol=1e-5)


def test_clipping_bounds_the_update_and_reports_the_norm_before():
    import mlx.optimizers as optim

    split, examples = _split(), _examples()
    before = _flat(split.model.trainable_parameters())
    facts = step(
        split,
        examples,
        OBJECTIVES[0],
        optim.SGD(learning_rate=1.0),
        token_budget=9999,
        clip_norm=0.01,
    )
    after = _flat(split.model.trainable_parameters())
    moved = np.sqrt(sum(((after[n] - before[n]) ** 2).sum() for n in before))
    assert facts.grad_norm > 0.05
    # float32 parameters near 1 lose about 1e-7 each in the subtraction.
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_changes_nothing():
    split, examples = _split(), _examples()
    flat = tree_flatten(split.model.trainable_parameters())
    name, value = flat[0]
    split.model.load_weights([(name, value * float("nan"))], strict=False)
    before = _flat(split.model.trainable_parameters())
    facts = _step(split, examples)
    assert not facts.applied
    after = _flat(split.model.trainable_parameters())
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
