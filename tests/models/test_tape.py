import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import adapters, load, tape
from mlx_rsft.settings import AdapterSettings, ModelSettings


def _kept(folder, rows=2, width=32, outline=tape.Outline, **chosen):
    model = load.outline(ModelSettings(source=str(folder))).model
    adapters.attach(model, AdapterSettings(**{"layers": "last:1", **chosen}))
    model.train()
    return tape.kept(outline(model), rows, width)


def test_an_outline_has_every_shape_and_takes_no_memory(demo_gguf):
    settings = ModelSettings(source=str(demo_gguf))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load.outline(settings).model
    adapters.attach(model, AdapterSettings(layers="last:1"))
    model.train()
    kept = tape.kept(tape.Outline(model), 4, 128)
    assert kept.others > 20e6
    assert mx.get_peak_memory() - before < 5e6


def test_the_outline_has_the_types_of_the_model_itself(tiny_folder):
    from mlx.utils import tree_flatten

    settings = ModelSettings(source=str(tiny_folder))
    real = dict(tree_flatten(load.load(settings).model.parameters()))
    outline = dict(tree_flatten(load.outline(settings).model.parameters()))
    assert {name: (v.shape, v.dtype) for name, v in real.items()} == {
        name: (v.shape, v.dtype) for name, v in outline.items()
    }


def test_only_trained_blocks_keep_anything(tiny_folder):
    one, two, three = (
        _kept(tiny_folder, layers=layers) for layers in ("last:1", "last:2", "all")
    )
    block = two.others - one.others
    assert block > 0
    # All but the first trained block keep the same, and that one's inputs are held too.
    assert three.others - two.others == pytest.approx(block, rel=0.1)


def test_what_is_kept_grows_with_rows_and_scores_with_the_square_of_the_width(
    tiny_folder,
):
    one = _kept(tiny_folder, 1, 64, tape.StockOutline)
    rows = _kept(tiny_folder, 4, 64, tape.StockOutline)
    wide = _kept(tiny_folder, 1, 128, tape.StockOutline)
    assert rows.others == pytest.approx(4 * one.others, rel=0.15)
    assert wide.scores == 4 * one.scores > 0
    # 3 heads: scores, masked scores and shares of 64 positions, in 4 bytes; the mask.
    assert one.scores == pytest.approx(3 * 3 * 64 * 64 * 4, rel=0.05)


def test_the_stand_ins_of_the_cpu_keep_no_scores(tiny_folder):
    stock = _kept(tiny_folder, 1, 128, tape.StockOutline)
    ours = _kept(tiny_folder, 1, 128)
    assert ours.scores < stock.scores / 3
    assert ours.others < stock.others


def test_dora_keeps_whole_weights_beside_activations(tiny_folder):
    lora, dora = (_kept(tiny_folder, 1, 16, method=name) for name in ("lora", "dora"))
    block = 24 * (24 + 8 + 8 + 24 + 40 + 40 + 40)  # weights of the seven linear layers
    assert dora.others - lora.others >= 3 * 4 * block


def test_the_model_is_as_it_was_when_its_graph_has_been_read(tiny_folder):
    from mlx.utils import tree_flatten

    model = load.load(ModelSettings(source=str(tiny_folder))).model
    adapters.attach(model, AdapterSettings(layers="last:1"))
    before = dict(tree_flatten(model.parameters()))
    tape.kept(tape.Outline(model), 2, 16)
    after = dict(tree_flatten(model.parameters()))
    assert all(mx.array_equal(before[name], after[name]) for name in before)


def test_a_model_that_wants_numbers_is_refused_with_a_way_out():
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(layers="last:1"))
    outline = tape.Outline(model)
    stock = type(model.model).__call__

    def nosy(self, inputs, *rest, **more):
        assert inputs[0, 0].item() >= 0
        return stock(self, inputs, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.model), "__call__", nosy)
        with pytest.raises(ModelError, match="peak_bytes"):
            tape.kept(outline, 1, 16)
