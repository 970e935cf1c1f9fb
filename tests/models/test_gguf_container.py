"""A file comes from strangers: what it claims is checked, quickly and by name."""

import random
import struct
import time
import tracemalloc

import gguf as reference
import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import files
from mlx_rsft.errors import ModelError
from mlx_rsft.models import gguf, gguf_container

ABSURD = 1 << 60
SECONDS = 1.0
BYTES = 32 << 20  # the small model's own weights, converted, take half of it


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name, kind, content):
    return text(name) + struct.pack("<I", kind) + content


def tensor(name, *sizes, kind=0, offset=0):
    return (
        text(name)
        + struct.pack("<I", len(sizes))
        + struct.pack(f"<{len(sizes)}Q", *sizes)
        + struct.pack("<IQ", kind, offset)
    )


def whole(*, keys=(), tensors=(), version=3, key_count=None, tensor_count=None):
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts)
    content = head + b"".join(keys) + b"".join(tensors)
    return content + bytes(-len(content) % 32) + bytes(4096)


def listed(kind, count):
    return struct.pack("<IQ", kind, count)


HOSTILE = {
    "a key of 2^60 bytes": (
        whole(keys=[struct.pack("<Q", ABSURD)]),
        f"a metadata key takes {ABSURD} bytes",
    ),
    "a text of 2^60 bytes": (
        whole(keys=[key("k", 8, struct.pack("<Q", ABSURD))]),
        f"'k' takes {ABSURD} bytes",
    ),
    "2^60 numbers": (
        whole(keys=[key("k", 9, listed(0, ABSURD))]),
        f"'k' takes {ABSURD} bytes",
    ),
    "2^60 texts": (
        whole(keys=[key("k", 9, listed(8, ABSURD))]),
        f"'k' takes {8 * ABSURD} bytes",
    ),
    "2^60 keys": (whole(key_count=ABSURD), "is there twice"),
    "2^60 tensors": (whole(tensor_count=ABSURD), "the tensor '' has 0 dimensions"),
    "a list in a list": (
        whole(keys=[key("k", 9, listed(9, 1) * 2000)]),
        "'k' is of the value type 9",
    ),
    "an unknown value type": (
        whole(keys=[key("k", 99, b"")]),
        "'k' is of the value type 99",
    ),
    "bytes that are not text": (
        whole(keys=[key("k", 8, struct.pack("<Q", 2) + b"\xff\xfe")]),
        "'k' is not UTF-8 text",
    ),
    "a name of 2^60 bytes": (
        whole(tensors=[struct.pack("<Q", ABSURD)]),
        f"a tensor's name takes {ABSURD} bytes",
    ),
    "sizes whose product is 0 modulo 2^64": (
        whole(tensors=[tensor("t", 1 << 32, 1 << 32)]),
        f"'t' takes {1 << 66} bytes",
    ),
    "a size of 2^63": (whole(tensors=[tensor("t", 1 << 63)]), "'t' takes"),
    "a size of 0": (whole(tensors=[tensor("t", 0)]), "'t' of type F32 has"),
    "2^31 dimensions": (
        whole(tensors=[text("t") + struct.pack("<I", 1 << 31)]),
        f"'t' has {1 << 31} dimensions",
    ),
    "half a block": (whole(tensors=[tensor("t", 33, kind=2)]), "'t' of type Q4_0 has"),
    "an unknown block type": (
        whole(tensors=[tensor("t", 32, kind=200)]),
        "'t' is of the block type 200, which is unknown",
    ),
    "bytes behind the end": (
        whole(tensors=[tensor("t", 32, offset=1 << 62)]),
        f"'t' starts at {1 << 62}, not at 0",
    ),
    "the same bytes for two tensors": (
        whole(tensors=[tensor("t", 32), tensor("u", 32)]),
        "'u' starts at 0, not at 128",
    ),
    "two tensors of one name": (
        whole(tensors=[tensor("t", 32), tensor("t", 32, offset=128)]),
        "'t' is there twice",
    ),
    "two keys of one name": (
        whole(keys=[key("k", 0, b"1")] * 2),
        "the metadata key 'k' is there twice",
    ),
    "an alignment of 0": (
        whole(keys=[key("general.alignment", 4, struct.pack("<I", 0))]),
        "'general.alignment' is 0",
    ),
    "an alignment of 2^31": (
        whole(
            keys=[key("general.alignment", 4, struct.pack("<I", 1 << 31))],
            tensors=[tensor("t", 32)],
        ),
        "'t' takes 128 bytes, 0 are left",
    ),
    "another version": (whole(version=77), "of version 77"),
}


def refused_quickly(path):
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(ModelError) as caught:
            gguf.convert(path, path.parent / "model", float_type="float32")
        assert time.perf_counter() - began < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert list(path.parent.iterdir()) == [path]
    assert str(path) in str(caught.value)
    return caught.value.message


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_file_claims_is_refused_by_name_at_once(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert message in refused_quickly(path)


def test_a_list_of_millions_that_are_there_is_refused_at_once(tmp_path):
    path = tmp_path / "m.gguf"
    count = 3_000_000
    path.write_bytes(whole(keys=[key("k", 9, listed(8, count) + bytes(8 * count))]))
    assert refused_quickly(path) == "'k' has 3000000 texts; 1048576 are the most."


def test_metadata_without_end_are_refused(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_container, "MOST_BYTES_BEFORE_DATA", 1 << 20)
    path = tmp_path / "m.gguf"
    content = struct.pack("<Q", 2 << 20) + bytes(2 << 20)
    path.write_bytes(whole(keys=[key("k", 8, content)]))
    assert refusal(path) == "'k' ends after 1 MiB; no model's metadata do."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("llama.block_count", (1 << 32) - 1, "layers, but 20 tensors"),
        ("llama.attention.head_count", 1 << 31, "attn_q.weight has shape (256, 256)"),
        ("llama.attention.value_length", 1 << 31, "differs from the head width"),
        ("llama.attention.key_length", 63, "is 63; halves of it are rotated"),
        ("llama.attention.head_count_kv", 3, "4 heads cannot share 3"),
        ("llama.attention.head_count_kv", 0, "head_count_kv' is 0"),
        ("llama.embedding_length", 1 << 31, "attn_q.weight has shape (256, 256)"),
        ("llama.feed_forward_length", 1 << 31, "has shape (512, 256); the metadata"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "is nan"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "is -1.0"),
        ("llama.rope.freq_base", float("inf"), "is inf"),
        ("llama.rope.freq_base", 0.0, "is 0.0"),
        ("tokenizer.ggml.tokens", ["a"], "the vocabulary say (1, 256)"),
        ("tokenizer.ggml.eot_token_id", 1 << 31, "but there are 1205 tokens"),
    ],
)
def test_metadata_that_claim_too_much_are_refused_by_name_at_once(
    tiny, tmp_path, name, value, message
):
    model = tiny()
    if name.endswith("key_length"):
        del model.metadata["llama.rope.dimension_count"]
        del model.metadata["llama.attention.value_length"]
    model.metadata[name] = value
    assert message in refused_quickly(model.write(tmp_path / "m.gguf"))


def test_a_head_as_wide_as_memory_is_refused_at_once(tiny, tmp_path):
    model = tiny()
    model.tensors["rope_freqs.weight"] = np.ones(32, np.float32)
    for name in ("key_length", "value_length"):
        model.metadata[f"llama.attention.{name}"] = 1 << 31
    model.metadata["llama.rope.dimension_count"] = 1 << 31
    message = refused_quickly(model.write(tmp_path / "m.gguf"))
    assert message == "rope_freqs.weight does not follow the rule of Llama 3."


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../escaped.weight", "../../escaped.weight has no counterpart"),
        ("/etc/escaped.weight", "/etc/escaped.weight has no counterpart"),
        ("\x1b[2Jx\0y", r"'\x1b[2Jx\x00y' has no counterpart"),
        ("x" * 5000, "x" * 100 + "... has no counterpart"),
    ],
)
def test_a_name_that_is_a_path_or_moves_the_cursor_stays_a_name(
    tiny, refusal, tmp_path, name, shown
):
    model = tiny()
    model.tensors[name] = np.zeros(32, np.float32)
    assert shown in refusal(model.write(tmp_path / "m.gguf"))
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_token_as_long_as_a_book_is_refused_at_once(tiny_scored, tmp_path):
    model = tiny_scored()
    tokens = model.metadata["tokenizer.ggml.tokens"]
    model.metadata["tokenizer.ggml.tokens"] = [*tokens[:-1], "ab" * 500_000]
    message = refused_quickly(model.write(tmp_path / "m.gguf"))
    assert message == "a token has 1000000 characters; 512 are the most."


def test_scores_that_are_no_numbers_are_refused(tiny_scored, refusal, tmp_path):
    model = tiny_scored()
    scores = model.metadata["tokenizer.ggml.scores"]
    model.metadata["tokenizer.ggml.scores"] = [*scores[:-1], float("nan")]
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert message == "'tokenizer.ggml.scores' holds something that is no number."


def test_a_norm_in_blocks_is_read_as_floats(tiny, tmp_path):
    model = tiny()
    name = "blk.0.ffn_norm.weight"
    blocks = reference.quantize(
        model.tensors[name], reference.GGMLQuantizationType.Q8_0
    )
    model.tensors[name] = blocks
    model.types[name] = reference.GGMLQuantizationType.Q8_0
    folder = tmp_path / "model"
    gguf.convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    weights = mx.load(str(folder / "model.safetensors"))
    found = weights["model.layers.0.post_attention_layernorm.weight"]
    wanted = reference.dequantize(blocks, reference.GGMLQuantizationType.Q8_0)
    assert np.array_equal(np.array(found), wanted)


def test_a_damaged_file_is_not_hashed(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("hashed"))
    path = tiny().write(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut short or damaged"):
        gguf.as_folder(path, float_type="float32")


def test_any_byte_may_be_wrong_without_a_traceback(tiny, tmp_path):
    """Either the file is refused, or the byte was one that may have any value."""
    rng = random.Random(0)
    path = tiny(layers=1, wide=256).write(tmp_path / "m.gguf")
    good = path.read_bytes()
    # The sizes of the first kilobyte, and the tensors' behind the vocabulary.
    behind = good.index(b"token_embd.weight")
    places = [*range(4, 1000), *range(behind - 8, behind + 700)]
    refused = 0
    for at in rng.sample(places, 120):
        bad = bytearray(good)
        bad[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        path.write_bytes(bad)
        began = time.perf_counter()
        try:
            gguf.convert(path, tmp_path / "model", float_type="float32")
        except ModelError:
            refused += 1
        assert time.perf_counter() - began < SECONDS
    assert refused > 60


def test_the_container_is_read_as_the_gguf_package_reads_it(tiny_of, tmp_path):
    model = tiny_of("qwen2")
    model.store("blk.0.ffn_up.weight", "Q4_K")
    model.metadata |= {
        "a.float": 0.1,
        "a.flag": True,
        "a.text": "naïve",
        "a.floats": [0.5, 1.5],
        "a.flags": [True, False],
        "a.negative": [-1, 3],
    }
    path = model.write(tmp_path / "m.gguf")
    ours = gguf_container.read(path)
    theirs = reference.GGUFReader(path)
    fields = {
        name: field.contents()
        for name, field in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    assert ours.metadata == fields
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor, found in zip(theirs.tensors, ours.tensors.values(), strict=True):
        assert found.kind == tensor.tensor_type.name
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert found.data.tobytes() == tensor.data.tobytes()
