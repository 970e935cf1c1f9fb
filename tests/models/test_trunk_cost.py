import mlx.nn as nn
import pytest

from mlx_rsft import testing
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk_cost import ModelSize, Workload, model_size, worth

SIZE = ModelSize(
    depth=22,
    num_blocks=30,
    width=576,
    below=22 * 3_538_944,
    above=8 * 3_538_944,
    head=576 * 49_152,
    token_bytes=576 * 4,
)


def test_ten_epochs_cost_one_pass_of_the_trunk_instead_of_ten():
    work = Workload(tokens=1000, supervised=80, length=0, training=10)
    seen = worth(SIZE, work)
    saved = seen.plain_flops - seen.cached_flops
    assert saved == pytest.approx(9 * 2 * SIZE.below * 1000)


def test_a_row_that_is_seen_once_gains_nothing():
    seen = worth(SIZE, Workload(tokens=1000, supervised=80, length=250, training=1))
    assert seen.gain == 1
    assert not seen.pays


def test_the_gain_never_exceeds_blocks_over_blocks_left():
    """Training passes go forward through all blocks, and back through those above."""
    work = Workload(tokens=1000, supervised=0, length=250, training=1e9)
    assert worth(SIZE, work).gain == pytest.approx((30 + 8) / (8 + 8), rel=1e-6)
    work = Workload(tokens=1000, supervised=0, length=250, training=0, scoring=1e9)
    assert worth(SIZE, work).gain == pytest.approx(30 / 8, rel=1e-6)


def test_a_head_that_does_most_of_the_work_leaves_little_to_gain():
    few = Workload(tokens=1000, supervised=10, length=250, training=10)
    many = Workload(tokens=1000, supervised=1000, length=250, training=10)
    assert worth(SIZE, few).gain > worth(SIZE, many).gain > 1


def test_the_sentence_names_blocks_bytes_and_gain():
    work = Workload(tokens=32_000, supervised=640, length=250, training=10)
    assert str(worth(SIZE, work)) == (
        "22 of 30 blocks computed once, 74 MB, about 2.1x fewer operations"
    )


def test_the_sizes_are_those_of_the_model():
    split = SplitModel(testing.tiny_model())
    attention = 24 * 24 * 2 + 24 * 8 * 2
    block = attention + 3 * 24 * 40
    size = model_size(split, 2)
    assert (size.depth, size.num_blocks, size.width) == (2, 3, 24)
    assert (size.below, size.above) == (2 * block, block)
    assert size.head == 24 * testing.VOCABULARY
    assert size.token_bytes == 24 * 4


def test_quantised_weights_count_as_many_as_they_stand_for():
    plain = testing.tiny_model(hidden_size=96, intermediate_size=64)
    packed = testing.tiny_model(hidden_size=96, intermediate_size=64)
    nn.quantize(packed, group_size=32, bits=4)
    expected = model_size(SplitModel(plain), 1)
    found = model_size(SplitModel(packed), 1)
    assert (found.below, found.above) == (expected.below, expected.above)
