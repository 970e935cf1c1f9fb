"""Adapters that lie: refused by name, at once, without the memory they ask for."""

import json
import resource
import struct
import time

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import files, testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import adapters
from mlx_rsft.settings import AdapterSettings

BIG = 2**60


@pytest.fixture(params=["mlx", "peft"])
def stored(request, tmp_path):
    """A good adapter's folder, its weights file, and a tensor's name."""
    model = testing.tiny_model()
    config = adapters.attach(model, AdapterSettings(rank=2, layers="last:1"))
    folder = tmp_path / "a"
    adapters.save(model, config, folder)
    # Its own hashes would stop everything below before the checks that it is about.
    files.write_json(folder / "adapter_config.json", config)
    if request.param == "mlx":
        return folder, folder / "adapters.safetensors"
    from mlx_rsft.export import EXPORTERS
    from mlx_rsft.export.live import Live
    from mlx_rsft.export.product import Choices
    from mlx_rsft.models.load import LoadedModel

    loaded = LoadedModel(model, None, folder, "tiny", "float32", ())
    out = tmp_path / "peft"
    out.mkdir()
    EXPORTERS["peft"].write(Live(loaded, config, "tiny"), out, Choices())
    return out, out / "adapter_model.safetensors"


def _assert_refused(folder, match):
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=match) as caught:
        adapters.load(testing.tiny_model(), folder)
    assert time.perf_counter() - began < 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kilobytes
    return str(caught.value)


def _header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_the_good_one_loads(stored):
    folder, path = stored
    model = testing.tiny_model()
    adapters.load(model, folder)
    weights = dict(tree_flatten(model.trainable_parameters()))
    assert len(weights) == len(mx.load(str(path))) > 0


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_file_cut_short(stored, kept):
    folder, path = stored
    path.write_bytes(path.read_bytes()[:kept])
    _assert_refused(folder, "no whole safetensors file")


@pytest.mark.parametrize("length", [BIG, 2**64 - 1, 2**31])
def test_a_header_of_any_length(stored, length):
    folder, path = stored
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    _assert_refused(folder, f"claims {length} bytes")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [BIG, BIG]},
        {"shape": [-1, 2]},
        {"shape": [1] * 1000},
        {"shape": "many"},
        {"dtype": "F4096"},
        {"data_offsets": [0, BIG]},
        {"data_offsets": [8, 0]},
        {"data_offsets": None},
    ],
)
def test_a_tensor_that_is_not_what_it_says(stored, changes):
    folder, path = stored
    header, data = _header(path)
    name = next(name for name in header if name != "__metadata__")
    header[name] |= changes
    _write(path, header, data)
    _assert_refused(folder, "no whole safetensors file")


def test_a_header_nested_beyond_all_measure(stored):
    folder, path = stored
    text = b"[" * 200_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    _assert_refused(folder, "no JSON object")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/x.lora_a", "a\0b", ""])
def test_names_that_are_paths_name_nothing(stored, name):
    folder, path = stored
    header, data = _header(path)
    last = [key for key in header if key != "__metadata__"][-1]
    header[name] = header.pop(last)
    _write(path, header, data)
    _assert_refused(folder, "no part|no tensor of a LoRA|lacks")


def test_wrong_shapes_are_named(stored):
    folder, path = stored
    tensors = {k: mx.array(v) for k, v in mx.load(str(path)).items()}
    name = sorted(tensors)[0]
    tensors[name] = mx.zeros((3, 5))
    mx.save_safetensors(str(path), tensors)
    said = _assert_refused(folder, r"\[3, 5\]")
    assert "down_proj" in said


def test_whole_numbers_where_fractions_belong_are_named(stored):
    folder, path = stored
    tensors = {k: mx.array(v) for k, v in mx.load(str(path)).items()}
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].astype(mx.int32)
    mx.save_safetensors(str(path), tensors)
    _assert_refused(folder, "holds I32, no fractions")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"lora_parameters": {"rank": BIG, "scale": 1.0, "dropout": 0.0}},
            "cannot be loaded",
        ),
        (
            {"lora_parameters": {"rank": 10**9, "scale": 1.0, "dropout": 0.0}},
            "cannot be loaded",
        ),
        ({"lora_parameters": {"rank": 2, "alpha": 1.0, "dropout": 0.0}}, "alpha"),
        ({"lora_parameters": {"rank": True, "scale": 1, "dropout": 0}}, "rank"),
        ({"lora_parameters": {"rank": 2, "scale": "1", "dropout": 0}}, "scale"),
        ({"lora_parameters": {"rank": 2, "scale": 1, "dropout": 2}}, "dropout"),
        ({"lora_parameters": None}, "no table"),
        ({"num_layers": "all"}, "num_layers"),
        ({"fine_tune_type": "pickle"}, "fine_tune_type"),
        ({"peft_type": "LORA", "modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "LORA", "bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "LORA", "layer_replication": [[0, 9]]}, "layer_replication"),
        ({"peft_type": "LORA", "r": BIG}, "lora_a is"),
        ({"peft_type": "LORA", "r": 2.5}, "r is"),
        ({"peft_type": "LORA", "lora_alpha": float("inf")}, "lora_alpha"),
        ({"peft_type": "LORA", "rank_pattern": {"(a+)+$": 2}}, "expression"),
        ({"peft_type": "LORA", "alpha_pattern": [1]}, "no table"),
    ],
)
def test_settings_that_make_no_sense(stored, change, match):
    folder, _ = stored
    path = folder / "adapter_config.json"
    held = json.loads(path.read_text())
    if ("peft_type" in change) != ("peft_type" in held):
        pytest.skip("the other format's settings")
    path.write_text(json.dumps(held | change))
    _assert_refused(folder, match)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\ud800"])
def test_a_configuration_that_is_no_object(stored, text):
    folder, _ = stored
    path = folder / "adapter_config.json"
    path.write_text(text, errors="surrogatepass")
    _assert_refused(folder, "no JSON object")


def test_a_pickle_is_never_read(stored):
    folder, path = stored
    if path.name != "adapter_model.safetensors":
        pytest.skip("PEFT's alone")
    path.rename(folder / "adapter_model.bin")
    _assert_refused(folder, "pickles are not read")
