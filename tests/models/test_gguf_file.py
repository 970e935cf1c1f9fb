import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import load

from mlx_rsft.models.gguf import convert

Q = "blk.0.attn_q.weight"  # its rows are moved
DOWN = "blk.1.ffn_down.weight"  # its rows are not


def dequantised(tiny, name):
    return gguf.dequantize(tiny.tensors[name], tiny.types[name])


def in_mlx_order(rows):
    """Rows of the small model's queries: 4 heads of 64, pairs to halves."""
    return rows.reshape(4, 32, 2, -1).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_4_and_8_bit_blocks_keep_every_value(tiny, tmp_path, kind, bits):
    model = tiny()
    model.store(Q, kind)
    model.store(DOWN, kind)
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    weights = mx.load(str(folder / "model.safetensors"))

    def ours(module):
        packed, scales, biases = (
            weights[f"{module}.{part}"] for part in ("weight", "scales", "biases")
        )
        assert (packed.dtype, scales.dtype) == (mx.uint32, mx.float32)
        return np.array(mx.dequantize(packed, scales, biases, 32, bits))

    # Equal, not close: the integers and both float16 numbers of a block are kept,
    # and their product fits in float32.
    moved = in_mlx_order(dequantised(model, Q))
    np.testing.assert_array_equal(ours("model.layers.0.self_attn.q_proj"), moved)
    stayed = dequantised(model, DOWN)
    np.testing.assert_array_equal(ours("model.layers.1.mlp.down_proj"), stayed)


def test_blocks_of_4_bit_floats_stay_but_for_the_embedding(tiny, tmp_path):
    model = tiny()
    for name in (Q, DOWN, "token_embd.weight"):
        model.store(name, "MXFP4")
    model.store("blk.0.ffn_up.weight", "Q8_0")
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "mode": "mxfp4",
        "model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 8},
    }
    weights = mx.load(str(folder / "model.safetensors"))
    for ours, theirs in (
        ("model.layers.0.self_attn.q_proj", in_mlx_order(dequantised(model, Q))),
        ("model.layers.1.mlp.down_proj", dequantised(model, DOWN)),
    ):
        packed, scales = weights[f"{ours}.weight"], weights[f"{ours}.scales"]
        assert scales.dtype == mx.uint8
        found = mx.dequantize(packed, scales, group_size=32, bits=4, mode="mxfp4")
        np.testing.assert_array_equal(np.array(found.astype(mx.float32)), theirs)
    # MLX looks it up in bfloat16, whatever the rest of the model is in.
    table = np.array(weights["model.embed_tokens.weight"])
    np.testing.assert_array_equal(table, dequantised(model, "token_embd.weight"))


def test_4_bit_floats_that_float16_cannot_hold_are_refused(tiny, refusal, tmp_path):
    model = tiny()
    model.store(DOWN, "MXFP4")
    model.tensors[DOWN][0, 0] = 127 + 15  # 6 times 2 to the 15th
    path = model.write(tmp_path / "m.gguf")
    message = refusal(path, float_type="half")
    assert message == f"{DOWN} holds numbers that are not finite in float16."


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
)
@pytest.mark.parametrize(
    ("float_type", "stored"), [("float32", "float32"), ("half", "float16")]
)
def test_other_block_types_become_floats(tiny, tmp_path, kind, float_type, stored):
    model = tiny()
    model.store(Q, kind)
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type=float_type)
    loaded, _ = load(str(folder))
    ours = np.array(loaded.model.layers[0].self_attn.q_proj.weight)
    expected = in_mlx_order(dequantised(model, Q))
    np.testing.assert_array_equal(ours, expected.astype(stored))


def test_a_file_may_mix_block_types(tiny, tmp_path):
    model = tiny(tied=False)
    for name, kind in {
        "token_embd.weight": "Q8_0",
        "output.weight": "Q6_K",
        Q: "Q4_0",
        DOWN: "Q4_1",
        "blk.0.ffn_up.weight": "Q5_0",
    }.items():
        model.store(name, kind)
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="half")
    loaded, _ = load(str(folder))
    block = loaded.model.layers[0]
    assert loaded.model.embed_tokens.bits == 8
    assert block.self_attn.q_proj.bits == 4
    assert block.self_attn.q_proj.scales.dtype == mx.float16
    assert block.mlp.up_proj.weight.dtype == mx.float16
    assert loaded.lm_head.weight.dtype == mx.float16
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }


def test_a_file_that_is_not_gguf_is_refused(refusal, tmp_path):
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x00" * 1000)
    assert "not a GGUF file" in refusal(other)
    other.write_bytes(b"")
    assert "not a GGUF file" in refusal(other)


def test_a_missing_file_and_a_folder_are_refused(refusal, tmp_path):
    assert "cannot be read" in refusal(tmp_path / "missing.gguf")
    assert "cannot be read" in refusal(tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tiny, refusal, tmp_path):
    path = tiny().write(tmp_path / "whole.gguf")
    whole = path.read_bytes()
    for size in [4, 7, 20, 60, 500, 5000, 20_000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert "cut short or damaged" in refusal(path), size


def test_an_adapter_and_a_part_are_refused_by_name(tiny, refusal, tmp_path):
    model = tiny()
    model.metadata["general.type"] = "adapter"
    assert "of type 'adapter'" in refusal(model.write(tmp_path / "adapter.gguf"))
    model = tiny()
    model.metadata["split.count"] = 3
    assert "one of 3 parts" in refusal(model.write(tmp_path / "part.gguf"))


def test_a_big_endian_file_is_refused(tiny, refusal, tmp_path):
    path = tiny().write(tmp_path / "m.gguf", endianess=gguf.GGUFEndian.BIG)
    assert "big-endian" in refusal(path)


def test_a_metadata_value_of_another_type_is_refused(tiny, refusal, tmp_path):
    model = tiny()
    model.metadata["llama.attention.head_count"] = [4, 4]  # differs by layer
    path = model.write(tmp_path / "m.gguf")
    assert "'llama.attention.head_count' is of type list, not int" in refusal(path)


def test_numbers_that_float16_cannot_hold_are_refused(tiny, refusal, tmp_path):
    model = tiny()
    model.tensors[DOWN][0, 0] = 1e5
    path = model.write(tmp_path / "m.gguf")
    message = refusal(path, float_type="half")
    assert message == f"{DOWN} holds numbers that are not finite in float16."


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q6_K", "F16"])
def test_numbers_that_are_none_are_refused(tiny, refusal, tmp_path, kind):
    model = tiny()
    model.store(DOWN, kind)
    model.tensors[DOWN][0] = 0x7D  # the float16 0x7D7D is not a number
    path = model.write(tmp_path / "m.gguf")
    assert refusal(path) == f"{DOWN} holds numbers that are not finite in float32."
