import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import config, machine, testing
from mlx_rsft.config import Layer
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import load, quantize
from mlx_rsft.settings import ModelSettings

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TOKENS = mx.arange(12)[None]
KINDS = {"4": (64, 4, "affine"), "8": (64, 8, "affine"), "mxfp4": (32, 4, "mxfp4")}


def _load(folder, **settings):
    return load.load(ModelSettings(source=str(folder), **settings))


def _edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return testing.write_tiny_model(tmp_path_factory.mktemp("wide") / "model", **WIDE)


def _rounded(kind, **changes):
    """The same by hand: every linear layer in the blocks."""
    size, bits, mode = KINDS[kind]
    model = testing.tiny_model(**WIDE, **changes)
    nn.quantize(
        model,
        group_size=size,
        bits=bits,
        mode=mode,
        class_predicate=lambda path, m: "layers" in path and isinstance(m, nn.Linear),
    )
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_layers_of_the_blocks_are_rounded_and_nothing_else(kind, folder):
    loaded = _load(folder, quantize=kind)
    size, bits, mode = KINDS[kind]
    assert mx.allclose(loaded.model(TOKENS), _rounded(kind)(TOKENS), atol=1e-5).item()
    record = loaded.as_record()
    assert record["quantised"] == {f"{bits}-bit {mode}, group {size}": 21}
    assert "scales" not in loaded.model.model.embed_tokens
    assert not tree_flatten(loaded.model.trainable_parameters())


def test_scales_are_float32_on_the_cpu_backend_also_where_weights_were_not(tmp_path):
    if machine.backend() != "cpu":
        pytest.skip("scales keep the stored type on this backend")
    folder = testing.write_tiny_model(tmp_path / "model", **WIDE)
    whole = testing.tiny_model(**WIDE)
    whole.set_dtype(mx.bfloat16)
    weights = dict(tree_flatten(whole.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    loaded = _load(folder, quantize="4")
    kinds = {p.dtype for _, p in tree_flatten(loaded.model.parameters())}
    assert kinds == {mx.float32, mx.uint32}
    assert loaded.precision == "float32"
    assert any("CPU backend" in note for note in loaded.notes)
    narrow = _load(folder, quantize="4", precision="stored")
    assert narrow.model.model.layers[0].mlp.up_proj.scales.dtype == mx.bfloat16


def test_a_quantised_model_keeps_its_own_rounding_and_says_so(tmp_path):
    folder = testing.write_tiny_model(tmp_path / "model", **WIDE)
    model = testing.tiny_model(**WIDE)
    nn.quantize(model, group_size=32, bits=4)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    _edit(folder, quantization={"group_size": 32, "bits": 4})
    loaded = _load(folder, quantize="8")
    assert set(loaded.as_record()["quantised"]) == {"4-bit affine, group 32"}
    assert "quantised already" in loaded.notes[0]
    assert _load(folder, precision="float32").as_record()["quantised"] == {}


def test_four_bits_in_a_small_model_are_announced_and_eight_are_not(folder):
    assert any("million" in note for note in _load(folder, quantize="4").notes)
    assert not any("million" in note for note in _load(folder, quantize="8").notes)


def test_weights_that_were_rounded_before_are_announced(folder, tmp_path):
    again = testing.write_tiny_model(tmp_path / "model", **WIDE)
    assert not any("second time" in note for note in _load(again, quantize="8").notes)
    _edit(again, quantization_config={"quant_method": "other"})
    assert any("second time" in note for note in _load(again, quantize="8").notes)


def test_layers_that_groups_do_not_divide_are_counted_and_none_is_refused(tmp_path):
    odd = {**WIDE, "intermediate_size": 100}
    some = testing.write_tiny_model(tmp_path / "some", **odd)
    loaded = _load(some, quantize="8")
    assert "3 layers are not a multiple of 64 wide" in loaded.notes[0]
    assert loaded.as_record()["quantised"] == {"8-bit affine, group 64": 18}
    none = testing.write_tiny_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="multiple of 64"):
        _load(none, quantize="4")


def test_a_model_decides_about_its_routers_itself():
    model = testing.tiny_model(**WIDE)

    class Choosy(type(model)):
        @property
        def quant_predicate(self):
            return lambda path, _: (
                {"group_size": 32, "bits": 8} if "gate" in path else "down" not in path
            )

    model.__class__ = Choosy
    quantize.quantize(model, "4")
    assert quantize.layers(model) == {
        "4-bit affine, group 64": 15,
        "8-bit affine, group 32": 3,
    }


@pytest.mark.parametrize("value", [4, "4"])
def test_bits_may_be_written_as_a_number(value):
    resolved = config.resolve([Layer("file", {"model.quantize": value})])
    assert resolved.config.model.quantize == "4"


@pytest.mark.parametrize("value", [3, "mxfp8", 4.0, True])
def test_other_bits_are_refused(value):
    with pytest.raises(ConfigError, match=r"model\.quantize"):
        config.resolve([Layer("file", {"model.quantize": value})])
