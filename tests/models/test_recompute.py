import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import testing
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.loss import Recipe
from mlx_rsft.models import adapters, tape
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Known, build
from mlx_rsft.settings import AdapterSettings
from mlx_rsft.training.gradient import Piece, gradient

SFT = Recipe(build({"name": "sft"}).weight)


def _split(**chosen):
    model = testing.tiny_model()
    mx.random.seed(1)
    adapters.attach(model, AdapterSettings(layers="all", **chosen))
    for name, value in tree_flatten(model.trainable_parameters()):
        moved = value + 0.05 * mx.random.normal(value.shape)
        model.load_weights([(name, moved)], strict=False)
    model.train()
    return SplitModel(model)


def _piece(rows, width):
    rng = np.random.default_rng(2)
    tokens = [tuple(rng.integers(1, 250, width).tolist()) for _ in range(rows)]
    examples = [Example(row, ((width - 5, width),), "f:1") for row in tokens]
    return Piece(collate(examples), Known())


def _gradient(split, piece):
    mx.random.seed(7)
    sums, grads = gradient(Passes(split), [piece], SFT)
    return sums, dict(tree_flatten(grads)), np.array(mx.random.uniform(shape=(3,)))


@pytest.mark.parametrize(
    "chosen",
    [{}, {"dropout": 0.3}, {"method": "dora"}, {"method": "full"}],
    ids=str,
)
@pytest.mark.parametrize("blocks", [(0,), (0, 1), (1,), (2,), (0, 1, 2)])
def test_blocks_that_are_run_again_give_the_same_gradient(chosen, blocks):
    split, piece = _split(**chosen), _piece(2, 19)
    plain, wanted, drawn = _gradient(split, piece)
    split.recomputed = blocks
    sums, found, drawn_again = _gradient(split, piece)
    for one, other in zip(plain, sums, strict=True):
        assert mx.array_equal(one, other).item()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        # What reaches a block's input is added up in another order.
        np.testing.assert_allclose(
            np.array(value), np.array(wanted[name]), rtol=1e-4, atol=2e-6, err_msg=name
        )
    assert float(mx.abs(next(iter(found.values()))).max()) > 0
    np.testing.assert_array_equal(drawn, drawn_again)


def test_each_such_block_keeps_its_input_alone(held_by_mlx):
    split, supervised = _split(), 8 * 96
    held = []
    for blocks in [(), (0,), (0, 1)]:
        split.recomputed = blocks
        held.append(held_by_mlx(split, 8, 96, supervised))
    # 4 bytes, 24 wide: what goes into a block.
    one_input = 8 * 96 * 24 * 4
    assert held[0] - held[1] > 8 * one_input
    assert held[1] - held[2] == pytest.approx(held[0] - held[1], rel=0.2)


@pytest.mark.parametrize("supervised", [8 * 384, 1001])
def test_the_graph_tells_what_such_blocks_keep(held_by_mlx, supervised):
    split = _split()
    outline = tape.Outline(split.model)
    split.recomputed = outline.recomputed = (0, 1)
    read = tape.kept(outline, 8, 384, supervised)
    held = held_by_mlx(split, 8, 384, supervised)
    assert read.scores + read.others == pytest.approx(held, rel=0.03)
