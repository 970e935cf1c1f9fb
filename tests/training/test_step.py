import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_rsft import testing
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, MachineError
from mlx_rsft.loss import Recipe
from mlx_rsft.models import adapters
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.models.trunk_store import MemoryStore
from mlx_rsft.objectives import OBJECTIVES, Known, TokenStats, build
from mlx_rsft.settings import AdapterSettings, OptimizerSettings
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.gradient import Piece, gradient
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper

NAMES = ["sft", "dft:floor=0.1"]
GIVEN = {"power": ":alpha=0.5", "blend": ":a=0.5", "floor": ":f=0.1"}
EVERY_KIND = [
    *(name + GIVEN.get(name, "") for name in OBJECTIVES),
    "dft:anchor=kl",
    "dft:anchor=k3",
    "dft:normalise=sequence",
    "dft:normalise=weight",
    "dft:keep=special,where=a",
]
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
        tags = ("a",) if len(examples) % 2 else ()
        examples.append(Example(tokens, ((start, end),), "f:1", tags=tags))
    return examples


def _recipe(text):
    objective = build({"name": text})
    return Recipe(objective.weight, objective.head_facts, objective.pulls)


def _slope(split, batches, text):
    pieces = [Piece(batch, Known()) for batch in batches]
    return gradient(Passes(split), pieces, _recipe(text))


def _flat(grads):
    return {name: np.array(grad) for name, grad in tree_flatten(grads)}


def _assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5)
    first, second = _flat(one[1]), _flat(other[1])
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], **ROUNDING)


@pytest.mark.parametrize("text", NAMES)
def test_padding_never_changes_the_loss_or_the_gradient(text):
    split, examples = _split(), _examples()
    tight = _slope(split, [collate(examples)], text)
    _assert_same(tight, _slope(split, [collate(examples, width=61)], text))


@pytest.mark.parametrize("text", NAMES)
def test_one_batch_of_eight_is_four_micro_batches_of_two(text):
    split, examples = _split(), _examples()
    pairs = [collate(examples[n : n + 2]) for n in range(0, 8, 2)]
    _assert_same(_slope(split, [collate(examples)], text), _slope(split, pairs, text))


@pytest.mark.parametrize("text", NAMES)
def test_the_gradient_is_that_of_the_whole_model_without_shortcuts(text):
    import mlx.nn as nn

    weigh = build({"name": text}).weight
    split, examples = _split(), _examples()
    batch = collate(examples)

    def plain(tokens):
        logits = split.model(tokens).reshape(-1, testing.VOCABULARY)
        logp = logits - mx.logsumexp(logits, -1, keepdims=True)
        chosen = logp[batch.rows_N, batch.targets_N]
        weight = mx.stop_gradient(weigh(TokenStats(chosen)))
        return -(weight * chosen).sum()

    value, grads = nn.value_and_grad(split.model, plain)(batch.tokens_BT)
    sums, found = _slope(split, [batch], text)
    np.testing.assert_allclose(sums.objective.item(), value.item(), rtol=1e-5)
    wanted, flat = _flat(grads), _flat(found)
    for name in wanted:
        np.testing.assert_allclose(flat[name], wanted[name], **ROUNDING)


def test_the_adapter_gradient_agrees_with_finite_differences():
    split, examples = _split(), _examples(3)
    text, batch = "sft", collate(examples)
    sums, grads = _slope(split, [batch], text)
    assert sums.tokens.item() > 0
    rng = np.random.default_rng(0)
    for name, grad in tree_flatten(grads):
        direction = mx.array(rng.normal(size=grad.shape), mx.float32)
        slopes = []
        for sign in (1, -1):
            moved = _moved(split, name, sign * 2e-3 * direction)
            slopes.append(_slope(moved, [batch], text)[0].objective.item())
        numeric = (slopes[0] - slopes[1]) / 4e-3
        exact = (grad * direction).sum().item()
        # A loss near 50 in float32 leaves 4e-6, over a step of 4e-3 about 1e-3.
        assert numeric == pytest.approx(exact, rel=1e-2, abs=1e-2), name


def _moved(split, name, by):
    other = _split()
    flat = dict(tree_flatten(other.model.trainable_parameters()))
    other.model.load_weights([(name, flat[name] + by)], strict=False)
    return other


def _stepper(split, text="sft", *, optimizer=None, **options):
    settings = OptimizerSettings(learning_rate=0.1)
    objective = build({"name": text})
    references = References(split, objective)
    references.refresh(0)
    return Stepper(
        split,
        objective,
        optimizer or optimizers.make(settings),
        references,
        **{"token_budget": 9999, "clip_norm": 0.0, **options},
    )


def test_a_step_lowers_the_loss_and_says_what_it_saw():
    split, examples = _split(), _examples()
    stepper = _stepper(split)
    first = stepper.step(examples)
    assert first.applied
    assert first.num_tokens == sum(len(e.tokens) for e in examples)
    assert int(first.totals.tokens) == sum(e.num_supervised for e in examples)
    assert sum(first.totals.histogram) == first.totals.tokens
    assert stepper.step(examples).totals.nll < first.totals.nll


@pytest.mark.parametrize("text", EVERY_KIND)
def test_micro_batches_never_change_the_step(text):
    examples = _examples()
    whole, cut = _split(), _split()
    a = _stepper(whole, text, kept=frozenset({7})).step(examples)
    b = _stepper(cut, text, kept=frozenset({7}), token_budget=64).step(examples)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
    assert a.divisor == pytest.approx(b.divisor, rel=1e-5)
    np.testing.assert_allclose(a.totals[:6], b.totals[:6], rtol=1e-4)
    assert a.totals.histogram == b.totals.histogram


def _kept(split, depth=1):
    return Trunk(split, depth, MemoryStore(10**6))


@pytest.mark.parametrize("text", EVERY_KIND)
def test_kept_states_of_frozen_blocks_never_change_the_step(text):
    # Rows of one length, so that a row alone and in a batch has the same bits.
    examples = [
        dataclasses.replace(example, tokens=(example.tokens * 9)[:40])
        for example in _examples()
    ]
    plain, cached = _split(), _split()
    for _ in range(2):  # the second time from the store
        a = _stepper(plain, text, kept=frozenset({7})).step(examples)
        kept = _stepper(cached, text, kept=frozenset({7}), trunk=_kept(cached))
        b = kept.step(examples)
        np.testing.assert_allclose(a.totals[:6], b.totals[:6], rtol=1e-4)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
    assert kept.trunk.stats.misses == len(examples)


def test_from_a_full_store_the_step_is_the_same_to_the_bit():
    split, examples = _split(), _examples()
    trunk = _kept(split)
    for example in examples:
        trunk.states([example.tokens], len(example.tokens))
    stepper = _stepper(split, "dft", trunk=trunk)
    first = gradient(Passes(split), stepper.pieces(examples, 1.0), stepper._recipe())
    again = gradient(Passes(split), stepper.pieces(examples, 1.0), stepper._recipe())
    for one, other in zip(first[0], again[0], strict=True):
        assert mx.array_equal(one, other).item()
    for name, grad in _flat(first[1]).items():
        np.testing.assert_array_equal(grad, _flat(again[1])[name])
    assert trunk.stats.misses == len(examples)


def _gradient_of(split, text, examples, strength=1.0, **options):
    stepper = _stepper(split, text, **options)
    sums, grads = gradient(
        Passes(split), stepper.pieces(examples, strength), stepper._recipe()
    )
    return sums.totals(), _flat(grads)


def test_rows_without_the_tag_and_kept_tokens_are_trained_as_by_sft():
    examples = _examples()
    tagged = [e for e in examples if e.tags]
    others = [e for e in examples if not e.tags]
    split = _split()
    _, mixed = _gradient_of(split, "dft:where=a", examples)
    _, dft = _gradient_of(split, "dft", tagged)
    _, sft = _gradient_of(split, "sft", others)
    for name in mixed:
        np.testing.assert_allclose(mixed[name], dft[name] + sft[name], **ROUNDING)
    everything = frozenset(range(testing.VOCABULARY))
    _, kept = _gradient_of(split, "dft:keep=special", examples, kept=everything)
    _, plain = _gradient_of(split, "sft", examples)
    for name in kept:
        np.testing.assert_allclose(kept[name], plain[name], **ROUNDING)


def test_staged_training_begins_as_sft():
    split, examples = _split(), _examples()
    _, early = _gradient_of(split, "dft:schedule=staged,anchor=kl", examples, 0.0)
    _, sft = _gradient_of(split, "sft", examples)
    for name in sft:
        np.testing.assert_allclose(early[name], sft[name], **ROUNDING)


def test_normalise_sequence_gives_every_row_the_same_say():
    split, examples = _split(), _examples(2)
    stepper = _stepper(split, "sft:normalise=sequence")
    facts, _ = _gradient_of(split, "sft:normalise=sequence", examples)
    rows = [_gradient_of(split, "sft", [e])[0] for e in examples]
    wanted = sum(row.nll / row.tokens for row in rows)
    assert facts.objective == pytest.approx(wanted, rel=1e-5)
    assert stepper.step(examples).divisor == 2


@pytest.mark.parametrize("normaliser", ["token", "weight", "sequence"])
def test_the_same_rows_twice_give_the_same_gradient_as_once(normaliser):
    text, examples = f"dft:normalise={normaliser}", _examples()
    again = [dataclasses.replace(example) for example in examples]
    once = _stepper(_split(), text).step(examples)
    twice = _stepper(_split(), text).step(examples + again)
    assert twice.grad_norm == pytest.approx(once.grad_norm, rel=1e-4)
    assert twice.divisor == pytest.approx(2 * once.divisor, rel=1e-4)


@pytest.mark.parametrize("normaliser", ["token", "weight", "sequence"])
def test_a_row_of_weight_2_is_that_row_twice(normaliser):
    text = f"dft:anchor=kl,normalise={normaliser}"
    first, *others = _examples()
    heavy = dataclasses.replace(first, weight=2.0)
    twice = _stepper(_split(), text).step([first, first, *others])
    once = _stepper(_split(), text).step([heavy, *others])
    assert once.grad_norm == pytest.approx(twice.grad_norm, rel=1e-4)
    assert once.divisor == pytest.approx(twice.divisor, rel=1e-5)


def test_an_anchor_is_nothing_before_the_first_step_and_pulls_back_after_it():
    model = testing.tiny_model()
    mx.random.seed(0)
    adapters.attach(model, AdapterSettings(rank=3, layers="last:2"))
    split, examples = SplitModel(model), _examples()
    anchored, _ = _gradient_of(split, "sft:anchor=kl,lambda=1", examples)
    # KL of a model to itself; float32 log-softmax leaves 1e-6 per token.
    assert anchored.objective == pytest.approx(anchored.nll, rel=1e-5)
    moved = _split()
    drifted, _ = _gradient_of(moved, "sft:anchor=kl,lambda=1", examples)
    assert drifted.objective > drifted.nll * 1.001


def test_base_model_figures_do_not_move_while_the_adapter_does():
    split, examples = _split(), _examples()
    stepper = _stepper(split, "prift")
    first = stepper.step(examples).totals.weight
    assert stepper.step(examples).totals.weight == pytest.approx(first, rel=1e-6)
    bare = SplitModel(testing.tiny_model())
    facts, _ = _gradient_of_base(bare, examples)
    assert first == pytest.approx(facts.probability, rel=1e-4)


def _gradient_of_base(split, examples):
    sums, _ = _slope(split, [collate(examples)], "sft")
    return sums.totals(), None


def test_the_lagged_model_is_refreshed_every_so_many_steps():
    split, examples = _split(), _examples()
    stepper = _stepper(split, "psft:every=2,epsilon=1e9")
    weights = []
    for number in range(4):
        stepper.references.refresh(number)
        totals = stepper.step(examples).totals
        weights.append(totals.weight / totals.tokens)
    # Right after a refresh both models are one, and every ratio is 1.
    assert weights[0] == pytest.approx(1, rel=1e-4)
    assert weights[2] == pytest.approx(1, rel=1e-4)
    assert weights[1] > 1.001


def test_the_base_model_is_refused_where_no_adapter_can_be_switched_off():
    model = testing.tiny_model()
    model.unfreeze()
    with pytest.raises(ConfigError, match="base model"):
        References(SplitModel(model), build({"name": "prift"}))


def test_a_trained_head_gets_its_gradient():
    import mlx.nn as nn

    model = testing.tiny_model(tie_word_embeddings=False)
    model.lm_head.unfreeze()
    split, examples = SplitModel(model), _examples(3)
    batch = collate(examples)
    found = _flat(_slope(split, [batch], "dft")[1])
    assert list(found) == ["lm_head.weight"]
    weigh = build({"name": "dft"}).weight

    def plain(tokens):
        logits = model(tokens).reshape(-1, testing.VOCABULARY)
        logp = logits - mx.logsumexp(logits, -1, keepdims=True)
        chosen = logp[batch.rows_N, batch.targets_N]
        return -(mx.stop_gradient(weigh(TokenStats(chosen))) * chosen).sum()

    wanted = _flat(nn.value_and_grad(model, plain)(batch.tokens_BT)[1])
    np.testing.assert_allclose(
        found["lm_head.weight"], wanted["lm_head.weight"], **ROUNDING
    )


def test_the_gradient_is_a_tree_like_the_trainable_parameters():
    split = _split()
    _, grads = _slope(split, [collate(_examples())], "sft")

    def shape(value):
        return value.shape

    wanted = tree_map(shape, split.model.trainable_parameters())
    assert tree_map(shape, grads) == wanted


def test_a_backend_that_does_not_share_memory_is_refused(monkeypatch):
    from mlx_rsft.training import gradient as module

    monkeypatch.setattr(module, "_fill", lambda blank, slope: None)
    module._require_views.cache_clear()
    with pytest.raises(MachineError, match="memory of its arrays"):
        _slope(_split(), [collate(_examples())], "sft")


def test_gradients_of_micro_batches_do_not_pile_up():
    model = testing.tiny_model()
    model.unfreeze()
    split = SplitModel(model)
    batches = [collate([example]) for example in _examples(6)]
    held = []
    real = split.supervised

    def watched(*given):
        held.append(mx.get_active_memory())
        return real(*given)

    split.supervised = watched
    _slope(split, batches, "sft")
    trained = sum(v.nbytes for _, v in tree_flatten(model.trainable_parameters()))
    # One sum, and nothing of the micro-batch before.
    assert max(held[1:]) - held[0] < 1.5 * trained


def test_clipping_bounds_the_update_and_reports_the_norm_before():
    import mlx.optimizers as optim

    split, examples = _split(), _examples()
    before = _flat(split.model.trainable_parameters())
    plain = optim.SGD(learning_rate=1.0)
    facts = _stepper(split, optimizer=plain, clip_norm=0.01).step(examples)
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
    assert not _stepper(split).step(examples).applied
    after = _flat(split.model.trainable_parameters())
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


def test_two_ranks_make_the_step_of_one_whatever_the_objective_needs(launched):
    script = str(Path(__file__).with_name("steps_of_ranks.py"))
    for code, said in launched([script] * 2):
        assert code == 0, said
        assert int(said.rpartition("alike: ")[2]) > 8
