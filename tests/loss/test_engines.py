from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import lanes, loss
from mlx_rsft.loss import Recipe, kernel
from mlx_rsft.loss.dense import differentiable
from mlx_rsft.objectives import TokenStats, build

N, V = 5, 11


def _recipe(text):
    objective = build({"name": text})
    return Recipe(objective.weight, objective.head_facts, objective.pulls)


SFT, DFT = _recipe("sft"), _recipe("dft")


def _case(dtype=np.float64, scale=2.0):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, V)) * scale).astype(dtype), rng.integers(0, V, N)


def _slope(recipe, targets, engine=loss.fused):
    def slope(logits):
        return engine(lambda z: z, logits, mx.array(targets), recipe).hidden_ND

    return slope


def _gradient_error(slope_at, recipe, logits, targets):
    """Largest distance between a gradient and finite differences of its held loss."""
    found = np.array(slope_at(mx.array(logits, mx.float32)))
    stats = TokenStats(mx.array(_logp(logits, targets), mx.float32))
    held = np.array(recipe.weight(stats), np.float64)
    step, worst = 1e-6, 0.0
    for n in range(N):
        for v in range(V):
            up, down = logits.copy(), logits.copy()
            up[n, v] += step
            down[n, v] -= step
            change = _logp(up, targets) - _logp(down, targets)
            slope = -(held * change).sum() / (2 * step)
            worst = max(worst, abs(slope - found[n, v]))
    return worst


def _logp(logits, targets):
    top = logits.max(1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return logits[np.arange(len(targets)), targets] - lse


@pytest.mark.parametrize("engine", [loss.dense, loss.fused])
@pytest.mark.parametrize("recipe", [SFT, DFT])
def test_the_gradient_agrees_with_finite_differences_in_float32(recipe, engine):
    logits, targets = _case()
    slope_at = _slope(recipe, targets, engine)
    # float32 softmax: 2 ** -24 relative, times a handful of operations.
    assert _gradient_error(slope_at, recipe, logits, targets) < 2e-6


def test_a_weight_that_is_not_held_fails_the_same_test():
    logits, targets = _case()

    def leaking(z):
        logp = mx.take_along_axis(
            z - mx.logsumexp(z, -1, keepdims=True), mx.array(targets)[:, None], -1
        )
        return -(mx.exp(logp) * logp).sum()

    assert _gradient_error(mx.grad(leaking), DFT, logits, targets) > 1e-2


@pytest.mark.parametrize("engine", [loss.dense, loss.fused])
def test_below_one_over_e_the_loss_pushes_a_target_up_and_a_leaking_one_down(engine):
    logits = mx.array([[0.0, 3.0]])  # p = 0.047

    def leaking(z):
        logp = z[:, 0] - mx.logsumexp(z, -1)
        return -(mx.exp(logp) * logp).sum()

    assert _slope(DFT, [0], engine)(logits)[0, 0].item() < 0
    assert mx.grad(leaking)(logits)[0, 0].item() > 0


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5])
def test_power_settles_at_the_sharpened_label_law(alpha):
    # Three labels with law r for one context: the optimum is p ~ r ** (1 / (1 - alpha)).
    law = np.array([0.5, 0.3, 0.2])
    counts = (law * 10).astype(int)
    targets = np.repeat(np.arange(3), counts)
    recipe = _recipe(f"power:alpha={alpha}")

    z = mx.zeros((3,))
    for _ in range(1500):
        rows = mx.broadcast_to(z[None], (10, 3))
        slopes = loss.dense(lambda h: h, rows, mx.array(targets), recipe)
        z = z - 0.2 * slopes.hidden_ND.sum(axis=0)
        mx.eval(z)
    wanted = law ** (1 / (1 - alpha))
    np.testing.assert_allclose(
        np.array(mx.softmax(z)), wanted / wanted.sum(), atol=1e-3
    )


@pytest.mark.parametrize("engine", [loss.dense, loss.fused])
def test_the_sums_are_what_they_say(engine):
    logits, targets = _case()
    rows = mx.array(logits, mx.float32)
    totals = engine(lambda z: z, rows, mx.array(targets), DFT).sums.totals()
    logp = _logp(logits, targets)
    p = np.exp(logp)
    wanted = [-(p * logp).sum(), -logp.sum(), p.sum(), p.sum(), (p * p).sum(), N]
    np.testing.assert_allclose(totals[:6], wanted, rtol=1e-5)
    bins = np.histogram(p, bins=loss.NUM_BINS, range=(0, 1))[0]
    assert totals.histogram == tuple(bins)
    assert totals.effective_share == pytest.approx(p.sum() ** 2 / (p * p).sum() / N)


@pytest.mark.parametrize("text", ["dft", "sft:anchor=kl,lambda=0.5", "eaft"])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_the_rows_sum_to_the_whole(text, count, monkeypatch):
    recipe, (logits, targets) = _recipe(text), _case()
    rows, known = mx.array(logits, mx.float32), mx.array(targets)
    reference = rows[::-1]

    def found():
        slopes = loss.fused(lambda z: z, rows, known, recipe, reference_ND=reference)
        stats, first = loss.token_stats(lambda z: z, rows, known, ("entropy",))
        return [*slopes.sums, slopes.hidden_ND, stats.logp, stats.entropy, first]

    whole = found()
    monkeypatch.setattr(kernel, "LEAST_SHARE", 1)
    monkeypatch.setattr(lanes, "count", lambda: count)
    assert len(kernel.shares(0, N)) == count
    for one, other in zip(whole, found(), strict=True):
        np.testing.assert_allclose(np.array(other), np.array(one), rtol=1e-5, atol=1e-7)


def test_shares_are_all_rows_once_and_none_is_small(monkeypatch):
    monkeypatch.setattr(lanes, "count", lambda: 4)
    for rows in (1, 63, 127, 128, 131, 255, 700):
        shares = kernel.shares(10, 10 + rows)
        places = [place for s in shares for place in range(s.start, s.stop)]
        assert places == list(range(10, 10 + rows))
        sizes = [s.stop - s.start for s in shares]
        assert len(sizes) == min(4, max(1, rows // kernel.LEAST_SHARE))
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("size", [49_157, 262_144])
@pytest.mark.parametrize("engine", ["dense", "fused", "trained"])
def test_a_large_vocabulary_costs_no_accuracy(engine, size):
    rng = np.random.default_rng(5)
    values = (4 * rng.normal(size=(2, size))).astype(np.float32)
    base = (values + 0.1 * rng.normal(size=(2, size))).astype(np.float32)
    anchored = engine != "trained"
    recipe = _recipe("sft:anchor=kl,lambda=0.5" if anchored else "sft")
    rows, targets = mx.array(values), np.array([1, size - 1])
    if engine == "trained":
        found = loss.trained(lambda _, z: z, {}, rows, mx.array(targets), recipe)
    else:
        run = getattr(loss, engine)
        found = run(
            lambda z: z,
            rows,
            mx.array(targets),
            recipe,
            reference_ND=mx.array(base),
        )
    logp, log_r = _log_softmax(values), _log_softmax(base)
    p, r = np.exp(logp), np.exp(log_r)
    place = np.arange(2), targets
    slope, wanted = p.copy(), -logp[place].sum()
    slope[place] -= 1
    if anchored:
        slope += 0.5 * (p - r)
        wanted += 0.5 * (r * (log_r - logp)).sum()
    sums = found.sums.totals()
    assert sums.nll == pytest.approx(-logp[place].sum(), rel=1e-6)
    assert sums.objective == pytest.approx(wanted, rel=1e-6)
    gap = np.abs(np.array(found.hidden_ND, np.float64) - slope)
    assert gap.max() < 1e-6 * np.abs(slope).max()
    # All errors of one sign, which a sum that is off makes of them, add up.
    assert gap.sum() < 2e-5


def _log_softmax(values):
    wide = values.astype(np.float64)
    less = wide - wide.max(-1, keepdims=True)
    return less - np.log(np.exp(less).sum(-1, keepdims=True))


def test_facts_of_a_large_vocabulary_are_exact():
    values = (4 * np.random.default_rng(2).normal(size=(2, 262_144))).astype(np.float32)
    logp = _log_softmax(values)
    p = np.exp(logp)
    wanted = ("entropy", "collision")
    stats, _ = loss.token_stats(lambda z: z, mx.array(values), mx.array([0, 1]), wanted)
    np.testing.assert_allclose(np.array(stats.logp), logp[[0, 1], [0, 1]], rtol=1e-6)
    # The difference of two numbers near 20.
    np.testing.assert_allclose(np.array(stats.entropy), -(p * logp).sum(1), rtol=1e-5)
    np.testing.assert_allclose(np.array(stats.collision), (p * p).sum(1), rtol=3e-6)


def test_a_certain_token_lands_in_the_last_bin():
    sums = loss.fused(lambda z: z, mx.array([[90.0, 0.0]]), mx.array([0]), SFT).sums
    assert sums.totals().histogram == (0,) * 19 + (1,)


def test_a_strength_of_zero_is_exactly_no_anchor():
    logits, targets = _case(np.float32)
    for anchor in ("kl", "k3"):
        recipe = _recipe(f"dft:anchor={anchor},lambda=0")
        assert not recipe.needs_reference
        if anchor == "kl":
            with_it = _slope(recipe, targets)(mx.array(logits))
            without = _slope(DFT, targets)(mx.array(logits))
            assert mx.array_equal(with_it, without).item()
    assert not build({"name": "dft:anchor=k3,lambda=0"}).needs


def test_low_precision_logits_are_summed_in_float32():
    logits, targets = _case(scale=20.0)
    low = mx.array(logits).astype(mx.bfloat16)
    wanted = -_logp(np.array(low.astype(mx.float32), np.float64), targets).sum()
    found = loss.fused(lambda z: z, low, mx.array(targets), SFT).sums.nll
    assert found.dtype == mx.float32
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_one_exponential_pass_gives_the_exact_log_sum_exp():
    logits, targets = _case(scale=30.0)
    rows = kernel.read(mx.array(logits, mx.float32), mx.array(targets))
    wide = logits.astype(np.float32).astype(np.float64)
    top = wide.max(1)
    wanted = top + np.log(np.exp(wide - top[:, None]).sum(1))
    np.testing.assert_allclose(np.array(rows.lse_N), wanted, rtol=1e-6)


def test_facts_of_the_head_have_their_textbook_values():
    logits, targets = _case()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    wanted = ("entropy", "collision", "top_entropy")
    stats, first = loss.token_stats(
        lambda z: z, mx.array(logits, mx.float32), mx.array(targets), wanted
    )
    entropy = -(p * np.log(p)).sum(1)
    np.testing.assert_allclose(np.array(stats.entropy), entropy, rtol=1e-5)
    np.testing.assert_allclose(np.array(stats.collision), (p * p).sum(1), rtol=1e-5)
    # A vocabulary of 11 has no more than its 11 likeliest tokens.
    np.testing.assert_allclose(np.array(stats.top_entropy), entropy, rtol=1e-5)
    assert np.array(first).tolist() == logits.argmax(1).tolist()
    tight, _ = loss.token_stats(
        lambda z: z, mx.array(logits, mx.float32), mx.array(targets), chunk_bytes=1
    )
    np.testing.assert_allclose(np.array(tight.logp), np.array(stats.logp), rtol=1e-6)


def test_the_entropy_of_the_likeliest_is_renormalised():
    logits = np.random.default_rng(0).normal(size=(2, 50)) * 2
    stats, _ = loss.token_stats(
        lambda z: z, mx.array(logits, mx.float32), mx.array([0, 1]), ("top_entropy",)
    )
    top = np.sort(logits, axis=1)[:, -20:]
    p = np.exp(top) / np.exp(top).sum(1, keepdims=True)
    wanted = -(p * np.log(p)).sum(1)
    np.testing.assert_allclose(np.array(stats.top_entropy), wanted, rtol=1e-5)


def _with_table(table, rows):
    return rows @ table.T


class TestTrainedHead:
    """The engine whose head has parameters of its own."""

    def _both(self, recipe, chunk_bytes):
        rng = np.random.default_rng(3)
        hidden = mx.array(rng.normal(size=(N, 4)).astype(np.float32))
        table = mx.array(rng.normal(size=(V, 4)).astype(np.float32))
        targets = mx.array(rng.integers(0, V, N))

        def dense(w, h):
            head = partial(_with_table, w)
            return differentiable(head, h, targets, recipe).objective

        def head(held, rows):
            return _with_table(held["w"], rows)

        found = loss.trained(
            head, {"w": table}, hidden, targets, recipe, chunk_bytes=chunk_bytes
        )
        value, slopes = mx.value_and_grad(dense, argnums=(0, 1))(table, hidden)
        mine = found.parameters["w"], found.hidden_ND
        return (found.sums.objective, mine), (value, slopes)

    @pytest.mark.parametrize("text", ["sft", "dft", "eaft", "gem", "label-smoothing"])
    @pytest.mark.parametrize("rows", [1, 2, N])
    def test_its_parameters_and_inputs_get_the_dense_gradient(self, text, rows):
        found, wanted = self._both(_recipe(text), rows * 4 * V)
        np.testing.assert_allclose(found[0].item(), wanted[0].item(), rtol=1e-5)
        for a, b in zip(found[1], wanted[1], strict=True):
            assert np.abs(np.array(b)).max() > 1e-3
            np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-4, atol=1e-6)

    def test_an_anchor_to_the_base_model_is_refused(self):
        with pytest.raises(ValueError, match="anchored"):
            self._both(_recipe("dft:anchor=kl"), 1 << 20)


def test_memory_does_not_know_the_number_of_rows():
    width, vocabulary = 8, 20_000
    table = mx.random.normal((vocabulary, width))
    budget = 16 * 4 * vocabulary

    def peak(count):
        hidden = mx.random.normal((count, width))
        targets = mx.zeros((count,), mx.int32)
        mx.eval(hidden, targets, table)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()

        found = loss.fused(
            lambda x: x @ table.T, hidden, targets, DFT, chunk_bytes=budget
        )
        mx.eval(found)
        return mx.get_peak_memory() - before

    few, many = peak(128), peak(512)
    assert many < few + 1_000_000
    assert many < 6.5 * budget


def test_a_quantised_head_gives_the_gradient_of_the_weights_it_stands_for():
    import mlx.nn as nn

    mx.random.seed(0)
    layer = nn.Linear(64, 96, bias=False)
    packed = nn.QuantizedLinear.from_linear(layer, group_size=32, bits=4)
    whole = mx.dequantize(packed.weight, packed.scales, packed.biases, 32, 4)
    hidden, targets = mx.random.normal((5, 64)), mx.array([1, 2, 3, 4, 5])
    slopes = [
        loss.fused(head, hidden, targets, DFT).hidden_ND
        for head in (packed, lambda h: h @ whole.T)
    ]
    np.testing.assert_allclose(*map(np.array, slopes), rtol=1e-4, atol=1e-6)
