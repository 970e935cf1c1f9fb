import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import lanes, testing
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk, why_not
from mlx_rsft.models.trunk_store import FolderStore, MemoryStore

ROWS = [tuple(range(3, 3 + n)) for n in (17, 9, 1, 24)]
WIDTH = 24
PLENTY = 1 << 24


def adapted(dtype=mx.float32, dropout=0.0, size=1.0, **changes):
    """A tiny model of five blocks with an adapter of some size on the last two."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = testing.tiny_model(num_hidden_layers=5, **changes)
    linear_to_lora_layers(model, 2, {"rank": 2, "scale": 4.0, "dropout": dropout})
    for name, value in tree_flatten(model.trainable_parameters()):
        model.load_weights([(name, size * mx.random.normal(value.shape))], strict=False)
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def padded(rows, width=WIDTH, pad=0):
    return mx.array([list(row) + [pad] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_a_row_alone_computes_the_very_same_on_kept_states(dtype):
    split = SplitModel(adapted(dtype))
    trunk = Trunk(split, 3, MemoryStore(PLENTY))
    for row in ROWS:
        tokens = mx.array([row])
        plain = split.hidden(tokens)
        for _ in range(2):
            kept = trunk.states([row], len(row))
            assert kept.values_BTD.dtype == dtype
            assert mx.array_equal(split.hidden(tokens, kept), plain).item()
    assert (trunk.stats.misses, trunk.stats.hits) == (len(ROWS), len(ROWS))


def test_a_batch_on_kept_states_differs_by_rounding_only():
    split = SplitModel(adapted(size=0.1))
    trunk = Trunk(split, 3, MemoryStore(PLENTY))
    tokens = padded(ROWS, pad=77)
    below = split.trunk(tokens, 3).values_BTD
    kept = trunk.states(ROWS, WIDTH)
    plain, upon = split.hidden(tokens), split.hidden(tokens, kept)
    for place, row in enumerate(ROWS):
        real = (place, slice(0, len(row)))
        # Of size 1; sums over other shapes round apart.
        assert mx.allclose(kept.values_BTD[real], below[real], atol=2e-6).item()
        assert mx.allclose(upon[real], plain[real], atol=5e-6).item()


@pytest.mark.skipif(lanes.count() < 2, reason="a second core is needed")
def test_rows_are_computed_at_once_and_block_by_block(monkeypatch):
    asked, compute = [], mx.eval
    monkeypatch.setattr(mx, "eval", lambda *some: (asked.append(some), compute(*some)))
    trunk = Trunk(SplitModel(adapted()), 3, MemoryStore(PLENTY))
    asked.clear()
    trunk.states(ROWS[:2], WIDTH)
    together = [some for some in asked if len(some[0]) == 2]
    assert len(together) >= 3
    assert all(
        one.shape[1] == len(row)
        for (some,) in together
        for one, row in zip(some, ROWS[:2], strict=True)
    )


def test_gradients_of_a_batch_on_kept_states_are_those_of_the_plain_model():
    model = adapted(size=0.1)
    split = SplitModel(model)
    rows = mx.array([3, 16, 32, 90])

    def loss(trunk):
        hidden = split.supervised(padded(ROWS), rows, trunk)
        return mx.square(split.head(hidden)).sum()

    differentiate = nn.value_and_grad(model, loss)
    plain = dict(tree_flatten(differentiate(None)[1]))
    kept = Trunk(split, 3, MemoryStore(PLENTY)).states(ROWS, WIDTH)
    for name, grad in tree_flatten(differentiate(kept)[1]):
        scale = mx.abs(plain[name]).max().item()
        # Sums over other shapes round apart, and the blocks above multiply that.
        assert mx.allclose(grad, plain[name], rtol=0, atol=1e-5 * scale).item(), name


def test_states_of_a_row_are_the_same_bits_whichever_batch_asks_first():
    split = SplitModel(adapted())
    alone = Trunk(split, 3, MemoryStore(PLENTY)).states(ROWS[:1], 17).values_BTD
    among = Trunk(split, 3, MemoryStore(PLENTY)).states(ROWS, 64).values_BTD
    assert mx.array_equal(alone[0], among[0, :17]).item()


def test_padding_is_zero_and_what_stands_there_changes_no_real_position():
    split = SplitModel(adapted())
    kept = Trunk(split, 3, MemoryStore(PLENTY)).states(ROWS, WIDTH)
    real = np.array([[t < len(row) for t in range(WIDTH)] for row in ROWS])
    values = np.array(kept.values_BTD)
    assert not values[~real].any()
    rubbish = mx.array(np.where(real[..., None], values, 1e4).astype(np.float32))
    plain = np.array(split.hidden(padded(ROWS), kept))
    other = np.array(split.hidden(padded(ROWS), TrunkStates(3, rubbish)))
    assert np.isfinite(plain).all()
    np.testing.assert_array_equal(plain[real], other[real])


def test_dropout_does_not_reach_what_is_kept():
    model = adapted(dropout=0.5)
    split = SplitModel(model)
    calm = Trunk(split, 4, MemoryStore(PLENTY)).states(ROWS, WIDTH)
    model.train()
    trained = Trunk(split, 4, MemoryStore(PLENTY)).states(ROWS, WIDTH)
    assert model.training
    assert mx.array_equal(calm.values_BTD, trained.values_BTD).item()


def test_nothing_below_is_run_for_rows_that_are_kept(monkeypatch):
    split = SplitModel(adapted())
    trunk = Trunk(split, 3, MemoryStore(PLENTY))
    first = trunk.states(ROWS, WIDTH)
    monkeypatch.setattr(split, "trunk", None)
    again = trunk.states(ROWS, WIDTH)
    assert mx.array_equal(first.values_BTD, again.values_BTD).item()


def test_rows_that_do_not_fit_are_computed_each_time_and_counted():
    split = SplitModel(adapted())
    row_bytes = len(ROWS[0]) * 24 * 4
    trunk = Trunk(split, 3, MemoryStore(row_bytes))
    wanted = Trunk(split, 3, MemoryStore(PLENTY)).states(ROWS, WIDTH).values_BTD
    for _ in range(2):
        kept = trunk.states(ROWS, WIDTH).values_BTD
        assert mx.array_equal(kept, wanted).item()
    assert trunk.stats.as_record() == {
        "hits": 1,
        "misses": 7,
        "left_out": 6,
        "num_bytes": row_bytes,
    }


def test_a_store_that_is_shared_never_gives_the_states_of_another_trunk(tmp_path):
    store = FolderStore(tmp_path, PLENTY)
    one, other = SplitModel(adapted()), SplitModel(adapted(rope_theta=100.0))
    for split, depth, name in ((one, 3, "a"), (one, 2, "a"), (other, 3, "b")):
        expected = Trunk(split, depth, MemoryStore(PLENTY)).states(ROWS, WIDTH)
        trunk = Trunk(split, depth, store, name)
        found = trunk.states(ROWS, WIDTH)
        assert trunk.stats.hits == 0
        assert mx.array_equal(found.values_BTD, expected.values_BTD).item()


def test_a_later_run_finds_the_same_bits_in_the_folder(tmp_path):
    split = SplitModel(adapted(mx.bfloat16))
    first = Trunk(split, 3, FolderStore(tmp_path, PLENTY), "a").states(ROWS, WIDTH)
    later = Trunk(split, 3, FolderStore(tmp_path, PLENTY), "a")
    again = later.states(ROWS, WIDTH)
    assert (later.stats.hits, later.stats.misses) == (len(ROWS), 0)
    assert mx.array_equal(
        first.values_BTD.view(mx.uint16), again.values_BTD.view(mx.uint16)
    ).item()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_usual_model_can_run_on_kept_states(depth):
    model = adapted(mx.bfloat16, dropout=0.5)
    model.train()
    assert why_not(SplitModel(model), depth) == ""
    assert model.training


class Wrapped(nn.Module):
    """A block whose output a test changes."""

    def __init__(self, block, change):
        super().__init__()
        self.block, self.change = block, change
        self.use_sliding = block.use_sliding

    def __call__(self, x, *args, **kwargs):
        return self.change(self.block(x, *args, **kwargs))


def changed_model(place, change):
    split = SplitModel(adapted())
    split.backbone.layers[place] = Wrapped(split.backbone.layers[place], change)
    return split


def test_a_model_that_looks_past_the_seam_is_told():
    from mlx_lm.models import llama

    class Skipping(llama.LlamaModel):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            outputs = [self.embed_tokens(inputs)]
            for layer in self.layers:
                outputs.append(layer(outputs[-1], "causal"))
            return self.norm(outputs[-1] + outputs[2])

    model = testing.tiny_model(num_hidden_layers=5)
    model.model = Skipping(model.args)
    split = SplitModel(model)
    assert why_not(split, 2) == ""
    assert "more than the output" in why_not(split, 3)


def mixes_rows(hidden):
    return hidden + hidden.mean(axis=0, keepdims=True)


def looks_ahead(hidden):
    return hidden + hidden[:, -1:]


@pytest.mark.parametrize("change", [mixes_rows, looks_ahead])
def test_a_model_whose_lower_blocks_mix_rows_or_look_ahead_is_told(change):
    assert "lower blocks" in why_not(changed_model(1, change), 3)


def test_a_model_whose_upper_blocks_look_ahead_is_told():
    assert "upper blocks let padding" in why_not(changed_model(4, looks_ahead), 3)


def test_a_model_whose_blocks_return_more_than_states_is_told():
    from mlx_lm.models import llama

    class Paired(llama.LlamaModel):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            hidden = self.embed_tokens(inputs)
            for layer in self.layers:
                hidden, _ = layer(hidden, "causal")
            return self.norm(hidden)

    model = testing.tiny_model()
    model.model = Paired(model.args)
    blocks = model.model.layers
    model.model.layers = [Wrapped(block, lambda h: (h, None)) for block in blocks]
    assert "cannot be run apart" in why_not(SplitModel(model), 2)


def test_a_model_that_runs_its_blocks_twice_is_told():
    from mlx_lm.models import llama

    class Looped(llama.LlamaModel):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            hidden = self.embed_tokens(inputs)
            for layer in [*self.layers, *self.layers]:
                hidden = layer(hidden, "causal")
            return self.norm(hidden)

    model = testing.tiny_model()
    model.model = Looped(model.args)
    assert "one call" in why_not(SplitModel(model), 2)
