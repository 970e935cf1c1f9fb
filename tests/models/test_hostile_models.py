"""Model folders that lie: refused by name, at once, without the memory they ask for."""

import json
import resource
import struct
import time

import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import load
from mlx_rsft.settings import ModelSettings

BIG = 2**60


@pytest.fixture
def folder(tmp_path):
    return testing.write_tiny_model(tmp_path / "model")


def _load(folder):
    return load.load(ModelSettings(source=str(folder)))


def _assert_refused(folder, match="."):
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=match) as caught:
        _load(folder)
    assert str(folder) in caught.value.where
    assert time.perf_counter() - began < 20  # the first one imports transformers
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kilobytes


def _header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1, -1000])
def test_weights_cut_short(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    _assert_refused(folder, "no whole safetensors file")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [BIG, BIG]},
        {"shape": [-1, 2]},
        {"shape": "many"},
        {"dtype": "F4096"},
        {"data_offsets": [0, BIG]},
        {"data_offsets": [8, 0]},
    ],
)
def test_a_tensor_that_is_not_what_it_says(folder, changes):
    path = folder / "model.safetensors"
    header, data = _header(path)
    name = next(name for name in header if name != "__metadata__")
    header[name] |= changes
    _write(path, header, data)
    _assert_refused(folder, "no whole safetensors file")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/x.weight", "a\0b", ""])
def test_names_that_are_paths_name_nothing(folder, name):
    path = folder / "model.safetensors"
    header, data = _header(path)
    header[name] = header.pop("model.norm.weight")
    _write(path, header, data)
    _assert_refused(folder, "weights cannot be loaded")


def test_an_index_that_names_files_elsewhere_reads_none_of_them(folder, tmp_path):
    (tmp_path / "else.safetensors").write_bytes(b"not for anyone")
    index = {"weight_map": {"model.norm.weight": "../else.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(_load(folder).as_record()["sha256"]) == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }


@pytest.mark.parametrize("change", ["drop", "shape", "dtype"])
def test_weights_that_are_missing_or_of_another_shape_or_kind_are_named(folder, change):
    path = folder / "model.safetensors"
    tensors = {name: mx.array(value) for name, value in mx.load(str(path)).items()}
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "drop":
        del tensors[name]
    elif change == "shape":
        tensors[name] = mx.zeros((3, 5))
    else:
        tensors[name] = tensors[name].astype(mx.int32)
    mx.save_safetensors(str(path), tensors)
    _assert_refused(folder, r"layers\.1\.mlp\.up_proj")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": "3"},
        {"num_hidden_layers": None},
        {"hidden_size": BIG},
        {"hidden_size": 10**9},
        {"hidden_size": 0},
        {"intermediate_size": BIG},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"vocab_size": -5},
        {"vocab_size": BIG},
        {"model_type": "../../evil"},
        {"model_type": 5},
        {"model_type": None},
        {"quantization": "4"},
        {"quantization": []},
    ],
)
def test_settings_that_make_no_sense(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    _assert_refused(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "[" * 100_000, "\ud800"])
def test_a_configuration_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text, errors="surrogatepass")
    _assert_refused(folder, r"config\.json")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"model": 5}'])
def test_a_tokenizer_that_is_none(folder, name, text):
    if (name, text) == ("tokenizer_config.json", '{"model": 5}'):
        pytest.skip("a key that nobody reads")
    (folder / name).write_text(text)
    _assert_refused(folder, "tokenizer cannot be loaded")
