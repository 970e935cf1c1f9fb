"""What every architecture owes: llama.cpp's numbers, whatever the blocks of a file."""

import json

import gguf as reference
import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.utils import dequantize_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from mlx_rsft.errors import ModelError
from mlx_rsft.models.gguf import convert
from mlx_rsft.models.gguf_families import ARCHITECTURES

# Both sides compute in float32: 3e-5 was measured. llama.cpp looks GELU up in a table
# of float16, which moves log-probabilities of Gemma by up to 2e-3.
NATS = {"gemma2": 5e-3, "gemma3": 5e-3}
IDS = [(7 * i * i + 3 * i) % 900 for i in range(200)]
KINDS = [
    *("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
]


@pytest.mark.parametrize(
    ("architecture", "tied"),
    [
        (architecture, tied)
        for architecture in ARCHITECTURES
        for tied in (True, False)
        if tied or architecture != "gemma2"
    ],
)
def test_tokens_and_log_probabilities_are_those_of_llama_cpp_and_of_pytorch(
    tiny_of, tmp_path, llama_cpp, nasty_texts, architecture, tied
):
    model = tiny_of(architecture, tied=tied)
    if not tied and architecture != "phi3":
        model.metadata[f"{architecture}.rope.scaling.type"] = "linear"
        model.metadata[f"{architecture}.rope.scaling.factor"] = 4.0
    model.metadata["tokenizer.chat_template"] = "{{ messages[0].content }}!"
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    server = llama_cpp(path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in nasty_texts:
        assert tokenizer.encode(text) == server.ids(text, add_special=True)
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == server.render(chat)
    ours = load(str(tmp_path / "model"))[0](mx.array([IDS]))[0]
    last = ours[-1] - mx.logsumexp(ours[-1])
    theirs = server.log_probs(IDS, 20)
    gaps = [abs(last[at].item() - theirs[at]) for at in theirs]
    assert max(gaps) < NATS.get(architecture, 3e-4)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="eager"
    )
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].numpy()
    # Float32 sums in another order.
    np.testing.assert_allclose(np.array(ours), logits, atol=1e-3, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_type_keeps_every_value_in_one_file(
    tiny_of, tmp_path, architecture
):
    mixed = tiny_of(architecture, layers=6)
    names = [name for name, value in mixed.tensors.items() if value.ndim == 2]
    for at, name in enumerate(names):
        mixed.store(name, KINDS[at % len(KINDS)])
    plain = tiny_of(architecture, layers=6)
    for name in names:
        rows = reference.dequantize(mixed.tensors[name], mixed.types[name])
        plain.tensors[name] = rows
    weights = []
    for model, folder in ((mixed, tmp_path / "mixed"), (plain, tmp_path / "plain")):
        convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
        loaded, _ = load(str(folder))
        kept = sum("scales" in module for module in loaded.modules())
        assert (kept > 0) == (model is mixed)
        loaded = dequantize_model(loaded)
        weights.append(dict(tree_flatten(loaded.parameters())))
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_array_equal(
            np.array(value.astype(mx.float32)), np.array(weights[1][name]), name
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_missing_tensor_is_named_and_no_folder_made(
    tiny_of, tmp_path, architecture
):
    folder = tmp_path / "model"
    model = tiny_of(architecture)
    names = [name for name in model.tensors if name.startswith("blk.1.")]
    for name in names:
        del model.tensors[name]
    with pytest.raises(ModelError) as caught:
        convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    assert all(f"{name} is missing" in str(caught.value) for name in names)
    assert not folder.exists()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sixteen_bits_are_those_that_the_activations_fit(
    tiny_of, tmp_path, architecture
):
    model = tiny_of(architecture)
    model.store("blk.0.ffn_down.weight", "MXFP4")
    model.store("blk.1.ffn_down.weight", "Q8_0")
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="half")
    loaded, _ = load(str(folder))
    values = [value for _, value in tree_flatten(loaded.parameters())]
    floats = {v.dtype for v in values if mx.issubdtype(v.dtype, mx.floating)}
    assert floats == {getattr(mx, ARCHITECTURES[architecture].half)}
    assert mx.isfinite(loaded(mx.array([IDS[:4]]))).all()


@pytest.mark.parametrize(
    ("architecture", "key", "value", "message"),
    [
        ("qwen2", "attention.key_length", 32, "MLX's model takes 256 / 4"),
        ("qwen2", "attention.sliding_window", 64, "has no counterpart in MLX's qwen2"),
        ("qwen3", "attention.sliding_window", 64, "has no counterpart in MLX's qwen3"),
        ("qwen3", "expert_count", 8, "has no counterpart in MLX's qwen3"),
        ("qwen3", "rope.scaling.type", "yarn", "RoPE scaling of type 'yarn'"),
        ("gemma2", "rope.scaling.type", "linear", "no counterpart in MLX's gemma2"),
        ("gemma2", "attn_logit_softcapping", 0.0, "attn_logit_softcapping' is 0.0"),
        ("gemma3", "attention.sliding_window_pattern", 7, "every layer has a sliding"),
        ("phi3", "attention.key_length", 32, "MLX's model takes 256 / 4"),
        ("phi3", "rope.dimension_count", 48, "differs from the head width, 64"),
        ("phi3", "rope.scaling.type", "linear", "rope.scaling.type' is not converted"),
    ],
)
def test_what_mlx_cannot_express_is_refused_by_name(
    tiny_of, refusal, tmp_path, architecture, key, value, message
):
    model = tiny_of(architecture)
    if key == "attention.key_length":
        for same in ("attention.value_length", "rope.dimension_count"):
            model.metadata[f"{architecture}.{same}"] = value
    model.metadata[f"{architecture}.rope.scaling.factor"] = 2.0
    model.metadata[f"{architecture}.{key}"] = value
    assert message in refusal(model.write(tmp_path / "m.gguf"))


def test_factors_for_long_texts_are_refused(tiny_of, refusal, tmp_path):
    model = tiny_of("phi3")
    model.tensors["rope_factors_long.weight"] = np.ones(32, np.float32)
    model.tensors["rope_factors_short.weight"] = np.ones(32, np.float32)
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert message.startswith("rope_factors_long.weight is there")


def test_the_words_of_another_rule_are_refused_for_qwen2(tiny_of, refusal, tmp_path):
    model = tiny_of("qwen2")
    model.metadata["tokenizer.ggml.pre"] = "smollm"
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert "not the pre-tokenizer 'smollm' of this file" in message


def test_bos_begins_a_text_of_qwen2_where_the_file_wants_it(
    tiny_of, tmp_path, llama_cpp, nasty_texts
):
    model = tiny_of("qwen2")
    model.metadata["tokenizer.ggml.pre"] = "deepseek-r1-qwen"
    model.metadata["tokenizer.ggml.add_bos_token"] = True
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    server = llama_cpp(path)
    for text in nasty_texts:
        assert tokenizer.encode(text) == server.ids(text, add_special=True)


def test_gemma_2_is_one_for_texts_of_its_window(tiny_of, refusal, tmp_path):
    folder = tmp_path / "model"
    convert(tiny_of("gemma2").write(tmp_path / "m"), folder, float_type="half")
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == config["sliding_window"] == 256
    path = tiny_of("gemma2", tied=False).write(tmp_path / "m.gguf")
    assert "output.weight has no counterpart" in refusal(path)
