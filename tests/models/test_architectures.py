"""What is read off the graph, and what is trimmed, holds for other architectures too."""

import importlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft.models import adapters, tape
from mlx_rsft.models.split import SplitModel
from mlx_rsft.settings import AdapterSettings

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
FAMILIES = {
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 32},
    "gemma3_text": {"sliding_window": 32, "sliding_window_pattern": 2},
    "phi3": {"rope_traditional": False},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    },
    "lfm2": {
        "block_dim": 64,
        "block_ff_dim": 96,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "conv_bias": False,
        "conv_L_cache": 3,
        "full_attn_idxs": [1, 3],
        "norm_eps": 1e-5,
    },
}


@pytest.mark.parametrize("supervised", [4 * 64, 101])
@pytest.mark.parametrize("family", FAMILIES)
def test_mlx_holds_what_its_graph_says_whatever_the_architecture(
    held_by_mlx, family, supervised
):
    model = _model(family)
    read = tape.kept(tape.Outline(model), 4, 64, supervised)
    held = held_by_mlx(SplitModel(model), 4, 64, supervised)
    assert read.scores + read.others == pytest.approx(held, rel=0.06)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_block_can_be_trimmed_in_every_one_of_them(family):
    assert SplitModel(_model(family)).trims


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_block_at_chosen_positions_gives_what_the_whole_gives(family):
    model = _model(family)
    split = SplitModel(model)
    assert split.trims
    for name, value in tree_flatten(model.trainable_parameters()):
        moved = value + 0.05 * mx.random.normal(value.shape)
        model.load_weights([(name, moved)], strict=False)
    tokens = mx.arange(3 * 37).reshape(3, 37) * 7 % 299
    rows = mx.array([0, 36, 37, 50, 73, 110])

    def value(model):
        del model
        hidden = split.supervised(tokens, rows)
        return (hidden * mx.cos(mx.arange(hidden.size).reshape(hidden.shape))).sum()

    differentiate = nn.value_and_grad(model, value)
    trimmed, found = differentiate(model)
    split.trims = False
    whole, wanted = differentiate(model)
    assert trimmed.item() == pytest.approx(whole.item(), rel=1e-4, abs=1e-4)
    wanted = dict(tree_flatten(wanted))
    for name, grad in tree_flatten(found):
        largest = mx.abs(wanted[name]).max().item()
        assert largest > 0, name
        np.testing.assert_allclose(
            np.array(grad), np.array(wanted[name]), atol=2e-5 * largest, err_msg=name
        )


def _model(family):
    module = importlib.import_module(f"mlx_lm.models.{family}")
    values = {"model_type": family, **SHAPE, **FAMILIES[family]}
    model = module.Model(module.ModelArgs.from_dict(values))
    model.freeze()
    adapters.attach(model, AdapterSettings(layers="last:2"))
    model.train()
    return model
