"""What every member of OBJECTIVES owes its users, on every engine."""

import inspect
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import loss
from mlx_rsft.errors import ConfigError
from mlx_rsft.loss import Recipe, kernel
from mlx_rsft.objectives import OBJECTIVES, Known, TokenStats, build

# For each member, how it is written, and the range its docstring states.
WRITTEN = {
    "sft": [("sft", 0, 1), ("sft:floor=0.5", 0.5, 1)],
    "dft": [("dft", 0, 1), ("dft:floor=0.1", 0.1, 1)],
    "power": [("power:alpha=0.5", 0, 1), ("power:alpha=2,floor=0.2", 0.2, 1)],
    "blend": [("blend:a=0.7", 0.3, 1)],
    "floor": [("floor:f=0.1", 0.1, 1)],
    "threshold": [("threshold", 0, 1), ("threshold:tau=0.5", 0, 1)],
    "focal": [("focal", 0, 1 + 2 / np.e), ("focal:gamma=1", 0, 1 + 1 / np.e)],
    "eaft": [("eaft", 0, 1), ("eaft:exponent=2", 0, 1)],
    "deft": [("deft", 0, 1)],
    "cayley": [("cayley", 0, 1)],
    "idft": [("idft", 0, 1), ("idft:beta=0.5", 0, 1)],
    "chord-phi": [("chord-phi", 0, 0.25)],
    "infosft": [("infosft", 0, 2.5867 + 0.28)],
    "luffy": [("luffy", 0, 0.25)],
    "talr": [("talr", 0, 1), ("talr:floor=0.1", 0.1, 1)],
    "psft": [("psft", 0, 1.28)],
    "prift": [("prift", 0, 1)],
    "cadft": [("cadft", 0, 1)],
    "iw-sft": [("iw-sft", 0, 16)],
    "gem": [("gem", 1, 1)],
    "label-smoothing": [("label-smoothing", 0.9, 0.9)],
}
COMPOSED = [
    ("dft:anchor=kl,lambda=0.05", 0, 1),
    ("dft:anchor=k3,lambda=0.02", -0.02, 1 + 0.02 * 9),
    ("sft:anchor=kl", 1, 1),
    ("dft:schedule=ramp,until=0.2", 0, 1),
    ("eaft:floor=0.2,anchor=kl,normalise=weight", 0.2, 1),
    ("dft:normalise=sequence,keep=end,where=noisy+odd", 0, 1),
]
CASES = [case for cases in WRITTEN.values() for case in cases] + COMPOSED
TEXTS = [text for text, _, _ in CASES]
EXTREMES = [0.0, -1e-8, -0.7, -20.0, -69.0, -500.0]
N, D, V = 7, 5, 23


def _known(count, rng=None, plain=False):
    rng = rng or np.random.default_rng(1)
    rows = np.sort(np.arange(count) % 3)
    return Known(
        row=mx.array(rows),
        row_tokens=mx.array(np.bincount(rows)[rows].astype(np.float32)),
        plain=mx.array(rng.random(count) < 0.3) if plain else None,
        reference_logp=mx.array(-rng.exponential(2, count).astype(np.float32)),
        lagged_logp=mx.array(-rng.exponential(2, count).astype(np.float32)),
        num_rows=3,
    )


def _recipe(text):
    objective = build({"name": text})
    return Recipe(objective.weight, objective.head_facts, objective.pulls)


def _case(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(N, D)) * scale
    table = rng.normal(size=(V, D))
    reference = hidden + rng.normal(size=(N, D)) * 0.3
    targets = rng.integers(0, V, N)
    return hidden, table, reference, targets, _known(N, rng, plain=True)


def _run(engine, recipe, dtype=mx.float32, cap=None, scale=1.0, **options):
    """Objective sums and the gradient at the hidden states, by one engine."""
    hidden, table, reference, targets, known = _case(scale=scale)
    table = mx.array(table).astype(dtype)

    def head(rows):
        logits = rows @ table.T
        return cap * mx.tanh(logits / cap) if cap else logits

    base = mx.array(reference).astype(dtype) if recipe.needs_reference else None

    rows = mx.array(hidden).astype(dtype)
    found = engine(head, rows, mx.array(targets), recipe, known, base, **options)
    flat = [np.array(part, np.float64) for part in found.sums]
    return flat, np.array(found.hidden_ND.astype(mx.float32), np.float64)


def test_every_member_is_exercised_here():
    assert set(WRITTEN) == set(OBJECTIVES)


@pytest.mark.parametrize(("text", "low", "high"), CASES)
def test_weights_are_finite_and_in_their_stated_range(text, low, high):
    objective = build({"name": text})
    count = 60
    rng = np.random.default_rng(2)
    logp = np.concatenate([EXTREMES, -rng.exponential(3, count - len(EXTREMES))])
    stats = TokenStats(
        mx.array(logp.astype(np.float32)),
        entropy=mx.array(rng.uniform(0, 11, count).astype(np.float32)),
        collision=mx.array(rng.uniform(0, 1, count).astype(np.float32)),
        top_entropy=mx.array(rng.uniform(0, 3.0, count).astype(np.float32)),
        known=_known(count, rng),
    )
    weight = np.array(objective.weight(stats))
    assert weight.shape == (count,)
    assert weight.dtype == np.float32
    assert np.isfinite(weight).all()
    assert weight.min() >= low - 1e-6
    assert weight.max() <= high + 1e-5


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("text", TEXTS)
def test_fused_chunks_equal_the_dense_oracle(text, cap):
    recipe = _recipe(text)
    wanted, slope = _run(loss.dense, recipe, cap=cap)
    for rows in (1, 3, N):
        got, found = _run(loss.fused, recipe, cap=cap, chunk_bytes=rows * 4 * V)
        if "step" in build({"name": text}).needs and rows < N:
            continue  # its weights want all tokens at once, and get them from the step
        # float32 sums of 23 terms in another order.
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=3e-6)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def _with_trained_head(head, rows, targets, recipe, known, base, **options):
    """The engine for a trained head, with no parameters in it, called like the others."""
    assert base is None
    return loss.trained(
        lambda _, x: head(x), {}, rows, targets, recipe, known, **options
    )


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_chunks_of_a_trained_head_equal_the_dense_oracle(text, dtype):
    recipe = _recipe(text)
    if recipe.needs_reference:
        with pytest.raises(AssertionError):
            _run(_with_trained_head, recipe)
        return
    wanted, slope = _run(loss.dense, recipe, dtype)
    rows = N if "step" in build({"name": text}).needs else 3
    got, found = _run(_with_trained_head, recipe, dtype, chunk_bytes=rows * 4 * V)
    close = {"rtol": 1e-4, "atol": 3e-6}
    if dtype == mx.bfloat16:  # the gradient is rounded to 8 bits on its way back
        close = {"rtol": 2e-2, "atol": 2e-2}
    np.testing.assert_allclose(found, slope, **close)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_low_precision_inputs_give_the_gradient_of_the_rounded_inputs(text):
    recipe = _recipe(text)
    wanted, slope = _run(loss.dense, recipe, mx.bfloat16)
    got, found = _run(loss.fused, recipe, mx.bfloat16)
    # The head multiplies in bfloat16 (8 bits): both engines see the same logits, and
    # round the gradient once more on its way back.
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, slope, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("text", TEXTS)
def test_the_logit_gradient_is_the_held_loss_by_finite_differences(text):
    objective = build({"name": text})
    recipe = _recipe(text)
    *_, targets, known = _case()
    rng = np.random.default_rng(4)
    logits, base = rng.normal(size=(N, V)) * 2, rng.normal(size=(N, V)) * 2
    pick = mx.array(targets)

    def engine_slope(engine):
        z = mx.array(logits, mx.float32)
        reference = mx.array(base, mx.float32) if recipe.needs_reference else None
        found = engine(lambda h: h, z, pick, recipe, known, reference)
        return np.array(found.hidden_ND, np.float64)

    logp = _log_softmax(logits)
    stats = kernel.facts(
        kernel.read(mx.array(logits, mx.float32), pick), objective.head_facts, known
    )
    weight = np.array(objective.weight(stats), np.float64)
    wanted = weight[:, None] * (np.exp(logp) - np.eye(V)[targets])
    for pull in objective.pulls:
        target = pull.target(mx.array(logits, mx.float32), mx.array(base, mx.float32))
        strength = np.where(np.array(known.plain), 0, pull.strength)[:, None]
        wanted += strength * (np.exp(logp) - np.exp(np.array(target, np.float64)))
    for engine in (loss.dense, loss.fused):
        np.testing.assert_allclose(engine_slope(engine), wanted, atol=5e-6)
    slope = engine_slope(loss.fused)
    for n, v in [(0, 0), (3, targets[3]), (6, 22)]:
        numeric = _held_slope(logits, base, targets, weight, known, objective, n, v)
        assert slope[n, v] == pytest.approx(numeric, abs=1e-5)


def _log_softmax(z):
    top = z.max(1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(1, keepdims=True))


def _held_slope(logits, base, targets, weight, known, objective, n, v):
    """Central difference, in float64, of the loss with weights and targets held."""
    targets_r = [
        np.array(
            pull.target(mx.array(logits, mx.float32), mx.array(base, mx.float32)),
            np.float64,
        )
        for pull in objective.pulls
    ]

    def value(z):
        logp = _log_softmax(z)
        total = -(weight * logp[np.arange(N), targets]).sum()
        for pull, log_r in zip(objective.pulls, targets_r, strict=True):
            strength = np.where(np.array(known.plain), 0, pull.strength)
            total += (strength * (np.exp(log_r) * (log_r - logp)).sum(1)).sum()
        return total

    up, down = logits.copy(), logits.copy()
    up[n, v] += 1e-5
    down[n, v] -= 1e-5
    return (value(up) - value(down)) / 2e-5


@pytest.mark.parametrize("text", TEXTS)
def test_logits_of_magnitude_100_give_finite_sums_and_gradients(text):
    for engine in (loss.dense, loss.fused):
        sums, slope = _run(engine, _recipe(text), scale=60.0)
        assert all(np.isfinite(part).all() for part in sums)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("probability", [1.0, 1e-30])
@pytest.mark.parametrize("text", TEXTS)
def test_certain_and_impossible_targets_are_finite(text, probability):
    logits = mx.array([[0.0, 200.0, -50.0], [0.0, np.log(1 / 1e-30), -50.0]])
    targets = mx.array([1, 1]) if probability == 1.0 else mx.array([0, 0])
    recipe = _recipe(text)
    reference = logits * 0.5 if recipe.needs_reference else None
    for engine in (loss.dense, loss.fused):
        found = engine(lambda h: h, logits, targets, recipe, _known(2), reference)
        assert np.isfinite(found.sums.objective.item())
        assert np.isfinite(np.array(found.hidden_ND)).all()


@pytest.mark.parametrize("text", TEXTS)
def test_one_token_and_none_are_batches_too(text):
    recipe = _recipe(text)
    for count in (1, 0):
        hidden = mx.ones((count, D))
        targets = mx.zeros((count,), mx.int32)
        known = Known() if count == 0 else _known(1)
        base = hidden if recipe.needs_reference else None
        for engine in (loss.dense, loss.fused):
            found = engine(lambda x: x, hidden, targets, recipe, known, base)
            assert found.sums.tokens.item() == count
            assert np.isfinite(found.sums.objective.item())
            assert found.hidden_ND.shape == hidden.shape
            assert np.isfinite(np.array(found.hidden_ND)).all()


@pytest.mark.parametrize("text", TEXTS)
def test_a_schedule_at_strength_0_is_plain_sft(text):
    objective = build({"name": text})
    known = Known(**{**_fields(_known(4)), "strength": 0.0})
    stats = TokenStats(
        mx.array([-0.1, -1.0, -3.0, -9.0]),
        entropy=mx.ones((4,)),
        collision=mx.ones((4,)) * 0.5,
        top_entropy=mx.ones((4,)),
        known=known,
    )
    np.testing.assert_allclose(np.array(objective.weight(stats)), 1.0, atol=1e-6)


def _fields(known):
    return {**known.arrays(), "num_rows": known.num_rows}


@pytest.mark.parametrize("text", TEXTS)
def test_the_string_and_the_table_build_the_same(text):
    written = build({"name": text})
    tabled = build(written.as_table())
    assert tabled.parameters == written.parameters
    assert tabled.composition == written.composition
    assert build({"name": str(written)}).composition == written.composition
    assert build({"name": str(written)}).parameters == written.parameters


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_docstring_says_its_range_and_the_readme_has_it(name):
    said = inspect.getdoc(OBJECTIVES[name].factory)
    assert said
    assert name in ("sft", "threshold", "gem", "label-smoothing") or "in [" in " ".join(
        said.split()
    )
    readme = Path(__file__).parents[2] / "README.md"
    assert f"| `{name}` |" in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "No objective"),
        ({"name": "dtf"}, "Did you mean 'dft'"),
        ({"name": "dft:flor=0.1"}, "Did you mean 'floor'"),
        ({"name": "dft:floor"}, "not a parameter"),
        ({"name": "dft:floor=x"}, "expected a number"),
        ({"name": "dft:floor=0.1,floor=0.2"}, "given twice"),
        ({"name": "dft", "floor": 2}, "between 0 and 1"),
        ({"name": "dft", "floor": "0.1"}, "expected a number"),
        ({"name": "dft", "floor": True}, "expected a number"),
        ({"name": "power"}, "'alpha' is missing"),
        ({"name": "power:alpha=-1"}, "at least 0"),
        ({"name": "power:alpha=nan"}, "finite"),
        ({"name": "dft:alpha=1"}, "no parameter 'alpha'"),
        ({"name": "dft:anchor=kk"}, "anchor"),
        ({"name": "dft:lambda=0.1"}, "without an anchor"),
        ({"name": "dft:until=0.1"}, "without a schedule"),
        ({"name": "dft:anchor=kl,lambda=-1"}, "lambda"),
        ({"name": "dft:schedule=stage"}, "Did you mean 'staged'"),
        ({"name": "dft", "where": [1]}, "expected tags"),
        ({"name": "dft:anchor=k3,normalise=weight"}, "add up to nothing"),
        ({"name": "infosft:target=1"}, "0.999"),
        ({"name": "gem:beta=0"}, "above 0"),
    ],
)
def test_a_wrong_objective_is_refused_with_what_to_do(table, said):
    with pytest.raises(ConfigError, match=said):
        build(table)
