"""Each gate against its paper's formula, written out anew in NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft.objectives import Known, TokenStats, build

P = np.array([0.999, 0.7, 0.3, 0.05, 1e-4])
H = np.array([0.01, 0.9, 1.5, 3.0, 2.0])
C = np.array([0.99, 0.6, 0.3, 0.1, 0.2])
TOP = np.array([0.0, 0.5, 1.0, 2.0, 2.9])
REFERENCE = np.array([0.9, 0.5, 0.4, 0.02, 1e-3])
LAGGED = np.array([0.9, 0.4, 0.29, 0.05, 1e-3])
ROW = np.array([0, 0, 1, 1, 2])


def _weights(text, **changes):
    known = Known(
        row=mx.array(ROW),
        row_tokens=mx.array(np.bincount(ROW)[ROW].astype(np.float32)),
        reference_logp=mx.array(np.log(REFERENCE), mx.float32),
        lagged_logp=mx.array(np.log(LAGGED), mx.float32),
        num_rows=3,
        **changes,
    )
    stats = TokenStats(
        mx.array(np.log(P), mx.float32),
        entropy=mx.array(H, mx.float32),
        collision=mx.array(C, mx.float32),
        top_entropy=mx.array(TOP, mx.float32),
        known=known,
    )
    return np.array(build({"name": text}).weight(stats), np.float64)


def _row_mean(values):
    return np.array([values[row == ROW].mean() for row in ROW])


def _z():
    nll = -np.log(P)
    rows = np.array([nll[row == ROW].mean() for row in range(3)])
    return ((rows - rows.mean()) / rows.std())[ROW]


FORMULAS = {
    "sft": np.ones(5),
    "dft": P,
    "dft:floor=0.1": np.maximum(P, 0.1),
    "floor:f=0.1": np.maximum(P, 0.1),
    "power:alpha=0": np.ones(5),
    "power:alpha=1": P,
    "power:alpha=0.5": np.sqrt(P),
    "blend:a=0.25": 0.75 + 0.25 * P,
    "threshold:tau=0.1": (P >= 0.1) * 1.0,
    "focal:gamma=2": (1 - P) * ((1 - P) - 2 * P * np.log(P)),
    "eaft": TOP / np.log(20),
    "eaft:exponent=2": (TOP / np.log(20)) ** 2,
    "deft": P**C,
    "cayley": P ** (P.mean() / 2 + (1 - P.mean() / 2) * P / (2 - P)),
    "idft": P ** np.clip(np.exp(-(np.log(P) + H)), 0.1, 2),
    "chord-phi": P * (1 - P),
    "infosft": P * np.maximum(np.log(0.93 / 0.07) - np.log(P / (1 - P)), 0),
    "luffy": 0.1 * P / (P + 0.1) ** 2,
    "talr": P ** (1 / np.median(-np.log(P))),
    "psft": np.where(P / LAGGED < 1.28, P / LAGGED, 0),
    "prift": REFERENCE,
    "cadft": P * np.exp(-np.maximum(_z(), 0)),
    "iw-sft": np.minimum(16, np.exp(_row_mean(np.log(P / REFERENCE)))),
    "gem": np.ones(5),
    "label-smoothing": np.full(5, 0.9),
    "dft:anchor=k3,lambda=0.02": P + 0.02 * (np.minimum(REFERENCE / P, 10) - 1),
}


@pytest.mark.parametrize("text", FORMULAS)
def test_the_weight_is_its_papers_formula(text):
    # exp and log in float32: 1e-6 relative, amplified by exponents up to 10.
    np.testing.assert_allclose(_weights(text), FORMULAS[text], rtol=2e-5, atol=1e-7)


def test_a_small_alpha_is_close_to_sft():
    np.testing.assert_allclose(_weights("power:alpha=1e-6"), 1, atol=1e-4)


def test_half_switched_in_is_half_way_from_sft():
    half = _weights("dft:schedule=ramp", strength=0.5)
    np.testing.assert_allclose(half, 0.5 + 0.5 * P, rtol=1e-5)


def test_plain_tokens_keep_weight_1_whatever_the_objective():
    plain = mx.array([True, False, True, False, True])
    weights = _weights("dft:anchor=k3,floor=0.1", plain=plain)
    assert weights[[0, 2, 4]].tolist() == [1, 1, 1]
    assert (weights[[1, 3]] < 1).all()


@pytest.mark.parametrize(
    ("text", "shares", "strengths"),
    [
        ("dft", [0, 0.5, 0.99], [1, 1, 1]),
        ("dft:schedule=staged", [0, 0.49, 0.5, 0.9], [0, 0, 1, 1]),
        ("dft:schedule=staged,until=0.2", [0.1, 0.2], [0, 1]),
        ("dft:schedule=ramp,until=0.2", [0, 0.1, 0.2, 0.5], [0, 0.5, 1, 1]),
        ("dft:schedule=ramp,until=0", [0], [1]),
    ],
)
def test_schedules_switch_the_objective_in(text, shares, strengths):
    composition = build({"name": text}).composition
    found = [composition.switched_in(share) for share in shares]
    assert found == pytest.approx(strengths)
