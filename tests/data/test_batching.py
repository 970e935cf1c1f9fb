import itertools

import numpy as np
import pytest

from mlx_rsft.data import batching
from mlx_rsft.data.conversation import Example


def _example(length, spans=((2, 4),), base=1):
    return Example(tuple(range(base, base + length)), spans, "f:1")


@pytest.mark.parametrize(("rows", "size"), [(10, 4), (7, 7), (5, 8), (9, 1)])
def test_every_row_is_seen_once_per_epoch_and_none_is_dropped(rows, size):
    steps = batching.steps_per_epoch(rows, size)
    for epoch in range(3):
        seen = [
            row
            for step in range(epoch * steps, (epoch + 1) * steps)
            for row in batching.window(step, rows, size, seed=4)
        ]
        assert sorted(seen) == list(range(rows))


def test_order_is_a_function_of_seed_and_epoch():
    first = batching.window(0, 100, 50, seed=1)
    assert batching.window(0, 100, 50, seed=1) == first
    assert batching.window(2, 100, 50, seed=1) != first
    assert batching.window(0, 100, 50, seed=2) != first


def _cost(lengths, groups, at_once=1):
    """Padded tokens if all parts of a group were as large as its largest."""
    tokens = 0
    for group in groups:
        width = batching.padded_width(max(lengths[n] for n in group))
        parts = np.array_split(group, min(at_once, len(group)))
        tokens += len(parts) * max(map(len, parts)) * width
    return tokens + batching.GROUP_TOKENS * len(groups)


def test_micro_batches_keep_every_row_and_the_budget():
    lengths = np.random.default_rng(0).integers(4, 120, 40).tolist()
    groups = batching.micro_batches(lengths, 512, 1)
    assert sorted(n for group in groups for n in group) == list(range(40))
    for group in groups:
        width = batching.padded_width(max(lengths[n] for n in group))
        assert len(group) * width <= 512


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_no_way_to_cut_the_sorted_rows_is_cheaper(at_once):
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = sorted(rng.integers(4, 90, 9).tolist(), reverse=True)
        groups = batching.micro_batches(lengths, 256, at_once)
        found = _cost(lengths, groups, at_once)
        for cuts in range(2**8):
            edges = [0, *(n + 1 for n in range(8) if cuts >> n & 1), 9]
            groups = [list(range(a, b)) for a, b in itertools.pairwise(edges)]
            full = [len(g) * batching.padded_width(lengths[g[0]]) for g in groups]
            if max(full) <= 256:
                assert found <= _cost(lengths, groups, at_once)


def test_rows_of_one_length_are_shared_out_equally():
    assert [len(g) for g in batching.micro_batches([100] * 8, 520, 2)] == [4, 4]
    assert [len(g) for g in batching.micro_batches([100] * 8, 520, 1)] == [3, 5]


def test_a_row_beyond_the_budget_is_computed_alone_not_dropped():
    groups = batching.micro_batches([10, 100], 32, 1)
    assert groups == [[1], [0]]


def test_positions_predict_exactly_the_supervised_tokens():
    examples = [_example(6, ((2, 4), (5, 6))), _example(9, ((3, 7),), base=100)]
    batch = batching.collate(examples)
    flat = np.array(batch.tokens_BT).reshape(-1)
    rows, targets = np.array(batch.rows_N), np.array(batch.targets_N)
    assert targets.tolist() == [3, 4, 6, 103, 104, 105, 106]
    assert flat[rows + 1].tolist() == targets.tolist()
    assert batch.num_tokens == 15


def test_no_pad_token_is_ever_supervised():
    rng = np.random.default_rng(1)
    for _ in range(50):
        examples = []
        for length in rng.integers(4, 30, 5):
            start = int(rng.integers(1, length - 1))
            end = int(rng.integers(start + 1, length + 1))
            examples.append(_example(int(length), ((start, end),)))
        width = 64
        batch = batching.collate(examples, width)
        wanted = [
            token for e in examples for a, b in e.spans for token in e.tokens[a:b]
        ]
        assert np.array(batch.targets_N).tolist() == wanted
        assert 0 not in wanted


def test_widths_are_few_and_never_too_small_for_the_attention_gradient():
    assert batching.padded_width(3) == 16
    assert batching.padded_width(17) == 24
    widths = {batching.padded_width(n) for n in range(1, 8193)}
    assert {width % 8 for width in widths} == {0}
    assert len(widths) < 120
    for n in range(64, 8193):
        assert n <= batching.padded_width(n) <= n * 9 / 8


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_have_every_row_once_and_about_equally_many_tokens(count):
    lengths = np.random.default_rng(0).integers(5, 200, 31).tolist()
    shares = batching.shares(lengths, count)
    assert sorted(itertools.chain(*shares)) == list(range(31))
    work = [sum(lengths[place] for place in share) for share in shares]
    assert max(work) - min(work) <= max(lengths)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_share_is_all_rows_in_their_order_and_few_rows_leave_shares_empty():
    assert batching.shares([3, 9, 4], 1) == [[0, 1, 2]]
    assert batching.shares([5], 3) == [[0], [], []]
