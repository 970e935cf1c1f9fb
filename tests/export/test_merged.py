"""Whole models: read back by stock mlx-lm, by our loader and by llama.cpp."""

import json
from dataclasses import replace

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model
from tokenizers import Tokenizer

from mlx_rsft import testing
from mlx_rsft.errors import CheckFailed, ConfigError, MachineError
from mlx_rsft.export import (
    fused,
    gguf_fields,
    gguf_merged,
    gguf_tensors,
    gguf_words,
    merging,
    rounding,
    verify,
)
from mlx_rsft.export.dense import log_probs
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.export.reading import Row
from mlx_rsft.models import fitted, gguf_file, load
from mlx_rsft.settings import ModelSettings

TOKENS = mx.array([[7, 33, 90, 4, 61, 200, 15, 44]])
# The same products in another order: float32, logits of some units.
ATOL = 2e-4


def reread(live, folder, **choices):
    folder.mkdir()
    fused.write(live, folder, Choices(**choices))
    return load_model(folder)[0]


@pytest.fixture
def live_on_disk(tmp_path, live_of):
    """Makes a live adapter of a tiny model whose files are as changed."""

    def make(changes=None, settings=None, **model):
        folder = testing.write_tiny_model(tmp_path / "base", **(changes or {}))
        loaded = load.load(ModelSettings(source=str(folder), **model))
        chosen = {"rank": 4, "layers": "last:2", **(settings or {})}
        return live_of(loaded.model, loaded.tokenizer, folder, str(folder), **chosen)

    return make


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        ({"method": "dora"}, {}),
        ({"keys": ("self_attn.q_proj", "model.embed_tokens")}, {}),
        ({"keys": ("lm_head", "mlp.up_proj")}, {"tie_word_embeddings": False}),
        ({"method": "full", "rank": 8}, {}),
        ({}, {"attention_bias": True}),
    ],
)
def test_a_fused_model_loads_in_stock_mlx_lm_with_the_same_logits(
    live_on_disk, tmp_path, settings, changes
):
    live = live_on_disk(changes, settings)
    again = reread(live, tmp_path / "fused")
    assert mx.allclose(again(TOKENS), live.model(TOKENS), atol=ATOL).item()


def test_a_merged_expert_layer_does_what_layer_and_adapter_did(live_of):
    from mlx_lm.models.mixtral import Model, ModelArgs

    args = testing.tiny_config(model_type="mixtral", num_local_experts=4)
    model = Model(ModelArgs.from_dict({**args, "num_experts_per_tok": 2}))
    model.freeze()
    keys = ("block_sparse_moe.switch_mlp.up_proj",)
    live = live_of(model, rank=2, layers="last:2", keys=keys)
    fresh = Model(model.args)
    fresh.load_weights(list(merging.weights(live).items()))
    assert mx.allclose(fresh(TOKENS), model(TOKENS), atol=ATOL).item()


def test_the_config_names_the_rope_base_for_both_readers(live_on_disk, tmp_path):
    live = live_on_disk({"rope_theta": 5e5})
    reread(live, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["rope_theta"] == told["rope_parameters"]["rope_theta"] == 5e5


def quantised(folder, **kind):
    """The tiny model on disk, quantised as mlx-lm does it."""
    import mlx.nn as nn

    model, config = load_model(folder)
    nn.quantize(model, **kind)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config["quantization"] = {"mode": "affine", **kind}
    (folder / "config.json").write_text(json.dumps(config))


WIDE = {"hidden_size": 192, "intermediate_size": 128}


@pytest.fixture
def live_of_rounded(tmp_path, live_of):
    def make(size):
        folder = testing.write_tiny_model(tmp_path / "base", **WIDE)
        quantised(folder, group_size=64, bits=4)
        loaded = load.load(ModelSettings(source=str(folder)))
        settings = {"rank": 4, "layers": "all", "size": size}
        return live_of(loaded.model, loaded.tokenizer, folder, "tiny", **settings)

    return make


def test_a_strong_adapter_outlives_being_quantised_again(live_of_rounded, tmp_path):
    live = live_of_rounded(1.0)
    model = reread(live, tmp_path / "out", requantize=True)
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert "scales" in model.layers[0].self_attn.q_proj
    # What has no adapter keeps its integers: rounding them again would not.
    kept = mx.load(str(live.path / "model.safetensors"))
    name = "model.embed_tokens.weight"
    assert mx.array_equal(model.model.embed_tokens.weight, kept[name]).item()


def test_an_adapter_that_four_bits_erase_is_refused_with_the_numbers(
    live_of_rounded, tmp_path
):
    live = live_of_rounded(1e-3)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckFailed, match="takes the adapter away") as caught:
        fused.write(live, tmp_path / "out", Choices(requantize=True))
    assert caught.value.exit_code == 3
    assert "nats per token merged" in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_a_base_that_is_not_quantised_cannot_be_quantised_again(tiny_live, tmp_path):
    with pytest.raises(ConfigError, match="not quantised"):
        fused.write(tiny_live(), tmp_path, Choices(requantize=True))


def test_divergence_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    p, q = (np.log(rng.dirichlet(np.ones(5), 3)) for _ in range(2))
    found = rounding.divergence(p.astype(np.float32), q.astype(np.float32))
    assert np.allclose(found, [(np.exp(a) * (a - b)).sum() for a, b in zip(p, q)])  # noqa: B905


FAMILIES = {
    "llama": {"attention_bias": True},
    "llama3": {
        "model_type": "llama",
        "head_dim": 16,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "max_position_embeddings": 512,
    },
}


def tokenizer():
    """The byte tokenizer with one merge, since llama.cpp wants some."""
    made = testing.byte_tokenizer()
    record = json.loads(made.backend_tokenizer.to_str())
    record["model"]["vocab"]["th"] = len(record["model"]["vocab"])
    record["model"]["merges"] = [["t", "h"]]
    for token in record["added_tokens"]:
        token["id"] += 1
    made._eos_token_ids = {testing.VOCABULARY}
    made._tokenizer._tokenizer = Tokenizer.from_str(json.dumps(record))
    return made


def family_live(name, tmp_path, live_of):
    """A model of a family with byte tokens; its norms are not all ones."""
    shape = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
    }
    shape["vocab_size"] = testing.VOCABULARY + 5  # one merge, and rows without a token
    config = testing.tiny_config(**{**shape, **FAMILIES[name]})
    folder = testing.write_tiny_model(tmp_path / "base")
    (folder / "config.json").write_text(json.dumps(config))
    model_class, args_class = _get_classes(config)
    mx.random.seed(3)
    model = model_class(args_class.from_dict(config))
    noisy = [
        (key, value + 0.3 * mx.random.normal(value.shape))
        for key, value in tree_flatten(model.parameters())
    ]
    model.load_weights(noisy)
    model.freeze()
    return live_of(model, tokenizer(), folder, str(folder), rank=4, layers="all")


@pytest.fixture
def asked(monkeypatch):
    """Asks a reader about one prompt: a place off by a mistake is off by far."""
    monkeypatch.setattr(verify, "PROMPTS", verify.PROMPTS[:1])

    def ask(live, path, reader="llama.cpp-model"):
        product = Product("gguf-merged", path)
        return verify.verify(live, product, verify.questions(live), reader)

    return ask


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gguf_made_from_a_folder_is_read_by_llama_cpp_alike(
    name, tmp_path, live_of, asked
):
    live = family_live(name, tmp_path, live_of)
    path = gguf_merged.file(live, tmp_path, "f32")
    verdict = asked(live, path)
    # llama.cpp looks Gemma's GELU up in a table of float16.
    assert verdict.gaps.largest < (0.05 if name == "gemma3" else 2e-3)
    assert verdict.gaps.greedy_agreement == 1


def test_rows_that_are_not_reordered_are_seen(tmp_path, live_of, asked, monkeypatch):
    live = family_live("llama", tmp_path, live_of)
    monkeypatch.setattr(gguf_tensors, "rotated", lambda values, heads: values)
    verdict = asked(live, gguf_merged.file(live, tmp_path, "f16"))
    assert not verdict.verified
    assert verdict.gaps.largest > 0.1


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_every_type_holds_the_numbers_that_it_says(kind, tmp_path, live_of, asked):
    live = family_live("llama", tmp_path, live_of)
    path = gguf_merged.file(live, tmp_path, kind)
    reader = gguf.GGUFReader(path)
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["blk.0.ffn_up.weight"] == kind.upper()
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    said = reader.fields["general.file_type"].contents()
    assert said == gguf_fields.FILE_TYPES[kind]
    rounded = type(live.model)(live.model.args)
    rounded.load_weights(list(gguf_tensors.as_read(live, kind).items()))
    meant = replace(live, loaded=replace(live.loaded, model=rounded))
    verdict = asked(meant, path)
    assert verdict.gaps.largest < 2e-3
    assert verdict.gaps.greedy_agreement == 1


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])  # a head of its own; tied
def test_few_bits_are_judged_by_what_is_left_of_the_adapter(
    name, tmp_path, live_of, asked
):
    live = family_live(name, tmp_path, live_of)
    product = gguf_merged.write(live, tmp_path, Choices(merged_type="q8_0"))
    assert "quantised again" in product.notes[0]
    verdict = asked(live, product.path, "gguf-model")
    assert verdict.limit.of == "divergence"
    assert 0 < verdict.gaps.lost < 0.05
    if name != "gemma3":  # whose random weights diverge more than any trained ones
        assert verdict.verified
    for place in fitted.places(live.model):
        place.module.lora_b = place.module.lora_b * 1e-3
    with pytest.raises(CheckFailed, match="takes the adapter away") as caught:
        gguf_merged.write(live, tmp_path, Choices(merged_type="q4_0"))
    assert caught.value.where == "--gguf-type"
    # A file that came about all the same, as by llama-quantize, fails with its reader.
    verdict = asked(live, product.path, "gguf-model")
    assert verdict.gaps.lost > rounding.MOST_SHARE
    assert not verdict.verified


def test_a_k_quant_needs_llama_quantize_and_uses_it(tmp_path, live_of, monkeypatch):
    live = family_live("qwen2", tmp_path, live_of)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="llama-quantize"):
        gguf_merged.file(live, tmp_path, "q4_k_m")
    # A stand-in: writes down what it is given, and copies.
    program, given = tmp_path / "llama-quantize", tmp_path / "given"
    program.write_text(f'#!/bin/sh\necho "$@" > {given}\n/bin/cp "$1" "$2"\n')
    program.chmod(0o755)
    product = gguf_merged.write(live, tmp_path, Choices(merged_type="q4_k_m"))
    whole = tmp_path / "name-f32.gguf"
    assert given.read_text().split() == [str(whole), str(product.path), "Q4_K_M"]
    assert gguf.GGUFReader(product.path).fields["general.file_type"].contents() == 0
    assert [found.name for found in tmp_path.glob("*.gguf")] == [product.path.name]
    program.write_text("#!/bin/sh\necho no such type >&2\nexit 1\n")
    with pytest.raises(MachineError, match=r"failed \(1\): no such type"):
        gguf_merged.file(live, tmp_path, "q4_k_m")


def test_an_unknown_family_is_refused_by_name(live_of, tmp_path):
    from mlx_lm.models.helium import Model, ModelArgs

    args = testing.tiny_config(model_type="helium", head_dim=8, attention_bias=False)
    args |= {"max_position_embeddings": 64, "mlp_bias": False}
    live = live_of(Model(ModelArgs.from_dict(args)), rank=2, layers="all")
    with pytest.raises(ConfigError, match="helium"):
        gguf_merged.file(live, tmp_path, "f16")


def test_the_demo_in_sixteen_bits_is_what_was_trained(demo_gguf, tmp_path, live_of):
    loaded = load.load(ModelSettings(source=str(demo_gguf)))
    settings = {"rank": 4, "layers": "last:2", "size": 0.02}
    live = live_of(
        loaded.model, loaded.tokenizer, loaded.path, str(demo_gguf), **settings
    )
    path = gguf_merged.file(live, tmp_path, "f16")
    text = loaded.tokenizer.encode("Water boils at one hundred degrees")
    first = int(mx.argmax(live.model(mx.array([text]))[0, -1]).item())
    row = Row((*text, first), len(text), greedy=True)
    short = verify.Questions([row], [log_probs(live.model, row)])
    product = Product("gguf-merged", path)
    verdict = verify.verify(live, product, short, "llama.cpp-model")
    # What rounding to 16 bits does to the weights: 0.009 to 0.015 was seen.
    assert verdict.gaps.largest <= 0.02
    base, made = gguf_file.read(demo_gguf), gguf_file.read(path)
    held = base.metadata
    assert made.metadata == {**held, "general.file_type": 1}
    assert made.kinds == base.kinds
    # The tokenizer that is made from the folder is the file's own.
    again = gguf_words.fields(loaded.tokenizer, 49152)
    for key in ("tokens", "token_type", "merges", "pre", "model", "add_bos_token"):
        name = f"tokenizer.ggml.{key}"
        # Tokens that are a template's alone are control tokens there, or defined ones.
        same = again[name].value == held[name]
        assert same or key == "token_type", key
