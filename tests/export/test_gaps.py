"""The figures by which a product is judged, and what they let through."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft.export import gaps, verify
from mlx_rsft.export.dense import log_probs
from mlx_rsft.export.gaps import Questions
from mlx_rsft.export.reading import DIVERGENCE, LARGEST, MEAN, Limit, Row

rng = np.random.default_rng(0)
LIVE, OTHER = (np.log(rng.dirichlet(np.ones(9), 4)).astype(np.float32) for _ in "ab")
WHOLE = (np.exp(LIVE) * (LIVE - OTHER)).sum(-1)


def seen(values, tokens):
    return {int(token): float(values[token]) for token in tokens}


def test_a_divergence_over_all_tokens_is_that_of_the_definition():
    for live, other, whole in zip(LIVE, OTHER, WHOLE, strict=True):
        found = gaps.divergence(seen(other, range(9)), live)
        assert found == pytest.approx(whole, abs=1e-6)


def test_a_divergence_over_some_tokens_is_never_larger_and_never_negative():
    for live, other, whole in zip(LIVE, OTHER, WHOLE, strict=True):
        for count in range(1, 9):
            found = gaps.divergence(seen(other, np.argsort(-other)[:count]), live)
            assert -1e-6 <= found <= whole + 1e-6


def test_log_probabilities_over_a_large_vocabulary_add_up():
    logits = (4 * rng.normal(size=(2, 262_144))).astype(np.float32)
    whole = logits.astype(np.float64)
    wanted = whole - np.log(np.exp(whole).sum(-1, keepdims=True))
    found = log_probs(lambda tokens: mx.array(logits)[None], Row((1, 2), 1, False))
    assert np.abs(found - wanted[:1]).max() < 1e-5  # float32 at 40; mlx: 4e-4


def rows(own):
    row = Row((1, 2, 3), 1, greedy=False, own=own)
    return row, LIVE[:2]


def asked(*owners, effect=1.0):
    found = [rows(own) for own in owners]
    held = [np.full(2, effect) for _ in found]
    return Questions([row for row, _ in found], [live for _, live in found], held)


def answers(row):
    values = OTHER if row.own else LIVE
    for place in (1, 2):
        yield place, seen(values[place - 1], range(9))


def test_what_is_lost_on_the_users_rows_is_not_hidden_by_bundled_texts():
    bundled = gaps.measure(answers, asked(False))
    assert bundled.lost == pytest.approx(0, abs=1e-6)
    both = gaps.measure(answers, asked(False, False, False, True))
    assert both.lost == pytest.approx(WHOLE[:2].mean(), abs=1e-5)
    assert both.divergence == pytest.approx(WHOLE[:2].mean() / 4, abs=1e-5)
    assert gaps.measure(answers, asked(True, effect=0.0)).lost is None


GOOD = gaps.Gaps(0.05, 0.005, 0.001, 0.1, 1.0, 9)


@pytest.mark.parametrize(
    ("limit", "change", "fits"),
    [
        (Limit(0.05, LARGEST), {}, True),
        (Limit(0.04, LARGEST), {}, False),
        (Limit(0.01, LARGEST), {"largest": float("inf")}, False),
        (Limit(0.005, MEAN), {}, True),
        (Limit(0.004, MEAN), {}, False),
        (Limit(0.005, MEAN), {"largest": 0.06}, False),
        (Limit(0.001, DIVERGENCE), {}, True),
        (Limit(0.0009, DIVERGENCE), {}, False),
        (Limit(1.0, DIVERGENCE), {"lost": 0.26}, False),
        (Limit(1.0, DIVERGENCE), {"lost": None}, True),
        (Limit(1.0, LARGEST), {"places": 0}, False),
    ],
)
def test_each_kind_of_file_is_judged_by_its_own_figure(limit, change, fits):
    assert verify.fits(replace(GOOD, **change), limit) is fits


def test_what_is_no_number_is_far_away_and_is_written_as_nothing():
    found = gaps.measure(lambda row: iter([(1, {0: float("nan")})]), asked(False))
    assert found.largest == found.mean == float("inf")
    record = verify.Verdict("x", False, found, Limit(1.0)).as_record()
    assert record["max_difference"] is record["divergence"] is None
