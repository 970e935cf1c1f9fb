import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load
from transformers import AutoConfig

from mlx_rsft.models.gguf import convert

# Both sides compute in float32; 5e-5 was measured. Taking the rotation, its scaling or
# the order of rows wrong moves these log-probabilities by more than 0.1.
TOLERANCE_NATS = 1e-3


def llama3_factors(factor, *, head_dim=64, theta=10000.0):
    """Meta's rule, frequency by frequency, as llama.cpp's converter stores it."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * theta ** (i / head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192 / 1:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def as_it_is(model):
    pass


def linear_scaling(model):
    model.metadata["llama.rope.scaling.type"] = "linear"
    model.metadata["llama.rope.scaling.factor"] = 4.0


def llama3_scaling(model):
    model.metadata["llama.context_length"] = 131072
    model.tensors["rope_freqs.weight"] = llama3_factors(32.0)


def another_rope_base(model):
    model.metadata["llama.rope.freq_base"] = 500000.0


def every_bias(model):
    _add_biases(model, "attn_q", "attn_k", "attn_v", "attn_output")
    _add_biases(model, "ffn_gate", "ffn_up", "ffn_down")


def some_biases(model):
    _add_biases(model, "attn_q", "attn_k", "attn_v")
    del model.tensors["blk.1.attn_k.bias"]


def _add_biases(model, *names):
    rng = np.random.default_rng(3)
    for layer in range(2):
        for name in names:
            rows = len(model.tensors[f"blk.{layer}.{name}.weight"])
            bias = rng.normal(0, 1, rows).astype(np.float32)
            model.tensors[f"blk.{layer}.{name}.bias"] = bias


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (every_bias, {}),
        (some_biases, {"head_dim": 32}),
        (as_it_is, {}),
        (as_it_is, {"tied": False}),
        (as_it_is, {"head_dim": 32}),
        (linear_scaling, {}),
        (llama3_scaling, {}),
        (another_rope_base, {}),
    ],
)
def test_log_probabilities_are_those_of_llama_cpp(
    tiny, tmp_path, llama_cpp, change, shape
):
    model = tiny(**shape)
    change(model)
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    ours, _ = load(str(tmp_path / "model"))
    ids = [(7 * i * i + 3 * i) % 1000 for i in range(200)]
    logits = ours(mx.array([ids]))[0, -1]
    log_probs = logits - mx.logsumexp(logits)
    theirs = llama_cpp(path).log_probs(ids, 20)
    gaps = [abs(log_probs[at].item() - theirs[at]) for at in theirs]
    assert max(gaps) < TOLERANCE_NATS


def test_biases_that_a_file_lacks_are_zeros_and_others_keep_their_place(tiny, tmp_path):
    model = tiny()
    some_biases(model)
    for float_type in ("float32", "half"):
        folder = tmp_path / float_type
        convert(model.write(tmp_path / "m.gguf"), folder, float_type=float_type)
        config = json.loads((folder / "config.json").read_text())
        assert (config["attention_bias"], config["mlp_bias"]) == (True, False)
        kinds = {p.dtype for _, p in tree_flatten(load(str(folder))[0].parameters())}
        assert len(kinds) == 1
        weights = mx.load(str(folder / "model.safetensors"))
        attention = "model.layers.1.self_attn"
        assert not weights[f"{attention}.k_proj.bias"].any().item()
        assert not weights[f"{attention}.o_proj.bias"].any().item()
        value = np.array(weights[f"{attention}.v_proj.bias"].astype(mx.float32))
        stored = model.tensors["blk.1.attn_v.bias"]
        np.testing.assert_allclose(value, stored, atol=1e-3)


def test_a_bias_of_the_head_is_refused_by_name(tiny, refusal, tmp_path):
    model = tiny(tied=False)
    model.tensors["output.bias"] = np.ones(4, np.float32)
    assert "output.bias has no counterpart" in refusal(model.write(tmp_path / "m"))


def test_mlx_and_transformers_read_the_same_rotation(tiny, tmp_path):
    model = tiny()
    llama3_scaling(model)
    another_rope_base(model)
    model.tensors["rope_freqs.weight"] = llama3_factors(8.0, theta=500000.0)
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    loaded, _ = load(str(folder))
    rule = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_parameters"] == {"rope_theta": 500000.0, **rule}
    assert loaded.args.max_position_embeddings == 131072
    assert loaded.args.rope_theta == 500000.0
    assert loaded.args.rope_scaling == rule
    theirs = AutoConfig.from_pretrained(folder)
    assert dict(theirs.rope_parameters) == {"rope_theta": 500000.0, **rule}
    assert theirs.rms_norm_eps == loaded.args.rms_norm_eps == 1e-5


def test_factors_that_follow_another_rule_are_refused(tiny, refusal, tmp_path):
    model = tiny()
    model.tensors["rope_freqs.weight"] = llama3_factors(32.0) + 0.01
    path = model.write(tmp_path / "m.gguf")
    assert refusal(path) == "rope_freqs.weight does not follow the rule of Llama 3."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.rope.scaling.type", "yarn", "type 'yarn'"),
        ("llama.expert_count", 8, "'llama.expert_count' has no counterpart"),
        ("llama.attention.scale", 0.5, "'llama.attention.scale' has no counterpart"),
        ("llama.rope.dimension_count", 32, "differs from the head width, 64"),
        ("llama.attention.value_length", 32, "differs from the head width, 64"),
        ("llama.attention.head_count", 0, "'llama.attention.head_count' is 0"),
        ("llama.block_count", 4_000_000_000, "4000000000 layers, but 20 tensors"),
    ],
)
def test_what_mlx_cannot_express_is_refused_by_name(
    tiny, refusal, tmp_path, key, value, message
):
    model = tiny()
    model.metadata[key] = value
    assert message in refusal(model.write(tmp_path / "m.gguf"))
