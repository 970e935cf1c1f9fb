import os
import subprocess
import sys
import time

import gguf as reference
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import generate, load
from mlx_lm.models import llama

from mlx_rsft import files
from mlx_rsft.errors import ConfigError, ModelError
from mlx_rsft.models import gguf

PROMPT = "The three primary colours are red, yellow and blue. Water boils at"


@pytest.fixture(scope="module")
def demo(demo_folder):
    return load(str(demo_folder))


@pytest.fixture(scope="module")
def prompt_ids(demo):
    return demo[1].encode(PROMPT)


@pytest.fixture(scope="module")
def demo_floats(demo_gguf):
    """Every tensor of the demo file in float32, under its name in the file."""
    return {
        tensor.name: reference.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reference.GGUFReader(demo_gguf).tensors
    }


def logits(model, ids):
    return np.array(model(mx.array([ids]))[0])


def built_by_hand(floats, *, undo_permutation):
    """The demo model in float32, straight from the file, by none of our code."""
    modules = {
        "attn_norm": "input_layernorm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
        **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
    }
    weights = {
        "model.embed_tokens.weight": floats["token_embd.weight"],
        "model.norm.weight": floats["output_norm.weight"],
    }
    for name, rows in floats.items():
        if not name.startswith("blk."):
            continue
        _, layer, module, _ = name.split(".")
        if undo_permutation and module in ("attn_q", "attn_k"):
            even, odd = (rows.reshape(-1, 32, 2, 576)[:, :, i] for i in (0, 1))
            rows = np.concatenate([even, odd], axis=1).reshape(rows.shape)
        weights[f"model.layers.{layer}.{modules[module]}.weight"] = rows
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=576,
            num_hidden_layers=30,
            intermediate_size=1536,
            num_attention_heads=9,
            num_key_value_heads=3,
            rms_norm_eps=1e-5,
            vocab_size=49152,
            rope_theta=100000.0,
        )
    )
    model.load_weights([(name, mx.array(rows)) for name, rows in weights.items()])
    return model


def test_the_folder_gives_the_logits_of_the_dequantised_file(
    demo, demo_floats, prompt_ids
):
    ours = logits(demo[0], prompt_ids)
    theirs = logits(built_by_hand(demo_floats, undo_permutation=True), prompt_ids)
    # The weights are equal; only the order of float32 additions differs, which moves
    # logits of up to 31 by 9e-5 here. Ten times that leaves room for another BLAS.
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


def test_rows_left_as_stored_give_other_logits(demo, demo_floats, prompt_ids):
    ours = logits(demo[0], prompt_ids)
    theirs = logits(built_by_hand(demo_floats, undo_permutation=False), prompt_ids)
    assert np.abs(ours - theirs).max() > 1


def test_log_probabilities_are_near_those_of_llama_cpp(
    demo, demo_llama_cpp, prompt_ids
):
    ours = logits(demo[0], prompt_ids).astype(np.float64)
    ours -= np.log(np.exp(ours).sum(-1, keepdims=True))
    gaps = [
        abs(ours[length - 1, at] - theirs)
        for length in range(1, len(prompt_ids) + 1)
        for at, theirs in demo_llama_cpp.log_probs(prompt_ids[:length], 10).items()
    ]
    # llama.cpp rounds activations to 8 bits before it multiplies 4-bit weights, which
    # moves one log-probability by up to 0.7 and ten by 0.09 to 0.13 on average (four
    # prompts). A RoPE base of 10000 gives 0.27, rows left as stored give 0.91.
    assert np.mean(gaps) < 0.15


def test_answers_are_sensible(demo):
    model, tokenizer = demo
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    answer = generate(model, tokenizer, prompt, max_tokens=24)
    assert "Paris" in answer
    assert len(answer) < 60  # it ended its turn


def test_an_unknown_architecture_is_refused_by_name(tiny, refusal, tmp_path):
    path = tiny().write(tmp_path / "m.gguf", architecture="qwen2moe")
    assert "architecture 'qwen2moe'" in refusal(path)
    assert "supported: llama, qwen2, qwen3, gemma2, gemma3, phi3." in refusal(path)


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.eos_token_id",
    ],
)
def test_a_missing_metadata_key_is_refused_by_name(tiny, refusal, tmp_path, key):
    model = tiny()
    del model.metadata[key]
    path = model.write(tmp_path / "m.gguf")
    assert refusal(path) == f"the metadata key {key!r} is missing."


def test_every_tensor_that_does_not_fit_is_named(tiny, tmp_path):
    model = tiny()
    del model.tensors["blk.1.ffn_up.weight"]
    del model.tensors["output_norm.weight"]
    model.tensors["blk.0.attn_sinks.weight"] = np.zeros(4, np.float32)
    model.tensors["blk.0.attn_k.weight"] = np.zeros((64, 256), np.float32)
    path = model.write(tmp_path / "m.gguf")
    with pytest.raises(ModelError) as caught:
        gguf.convert(path, tmp_path / "model", float_type="float32")
    for said in (
        "4 problems",
        "blk.1.ffn_up.weight is missing",
        "output_norm.weight is missing",
        "blk.0.attn_sinks.weight has no counterpart",
        "blk.0.attn_k.weight has shape (64, 256); the metadata and the vocabulary "
        "say (128, 256)",
    ):
        assert said in caught.value.message
    assert not (tmp_path / "model").exists()


def test_a_vocabulary_of_another_size_is_refused(tiny, refusal, tmp_path):
    model = tiny()
    table = model.tensors["token_embd.weight"]
    model.tensors["token_embd.weight"] = table[:-1]
    path = model.write(tmp_path / "m.gguf")
    assert "token_embd.weight has shape (1204, 256)" in refusal(path)


def test_an_unknown_float_type_is_refused(demo_gguf, tmp_path):
    with pytest.raises(ConfigError, match="float_type is 'float64'"):
        gguf.convert(demo_gguf, tmp_path / "model", float_type="float64")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_converted_and_hashed_once(tiny, tmp_path, cache, monkeypatch):
    path = tiny().write(tmp_path / "m.gguf")
    first = gguf.as_folder(path, float_type="float32")
    assert first.is_relative_to(cache)
    load(str(first))

    def unexpected(*_, **__):
        raise AssertionError("this work was done before")

    monkeypatch.setattr(gguf, "convert", unexpected)
    monkeypatch.setattr(files, "sha256", unexpected)
    began = time.perf_counter()
    assert gguf.as_folder(path, float_type="float32") == first
    assert time.perf_counter() - began < 0.1


def test_other_content_under_the_same_name_is_converted_anew(tiny, tmp_path, cache):
    model = tiny()
    path = model.write(tmp_path / "m.gguf")
    first = gguf.as_folder(path, float_type="float32")
    assert gguf.as_folder(path, float_type="half") != first
    model.tensors["output_norm.weight"] += 1
    model.write(path)
    os.utime(path, ns=(0, 0))
    assert gguf.as_folder(path, float_type="float32") != first


def test_the_same_content_under_another_name_is_not_converted_again(
    tiny, tmp_path, cache
):
    first = gguf.as_folder(tiny().write(tmp_path / "a"), float_type="float32")
    assert gguf.as_folder(tiny().write(tmp_path / "b"), float_type="float32") == first


def test_a_file_that_cannot_be_used_leaves_no_folder_in_the_cache(
    tiny, tmp_path, cache
):
    path = tiny().write(tmp_path / "m.gguf", architecture="rwkv7")
    with pytest.raises(ModelError, match="rwkv7"):
        gguf.as_folder(path, float_type="float32")
    assert not list(cache.rglob("config.json"))
    with pytest.raises(ModelError, match="cannot be read"):
        gguf.as_folder(tmp_path / "missing.gguf", float_type="float32")


def test_processes_that_ask_at_once_convert_once(tiny, tmp_path, cache):
    path = tiny().write(tmp_path / "m.gguf")
    program = f"""if True:
        import time
        from pathlib import Path
        from mlx_rsft.models import gguf
        convert = gguf.convert
        def slowly(*values, **names):
            print("converting")
            time.sleep(1.5)  # longer than two processes can start apart
            convert(*values, **names)
        gguf.convert = slowly
        print(gguf.as_folder(Path({str(path)!r}), float_type="float32"))
    """
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = b"".join(process.communicate()[0] for process in both).decode().split()
    assert [process.returncode for process in both] == [0, 0]
    folder = gguf.as_folder(path, float_type="float32")
    assert sorted(said) == sorted(["converting", str(folder), str(folder)])
    load(str(folder))
