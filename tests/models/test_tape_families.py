"""What is read off the graph holds for other architectures too."""

import importlib

import pytest

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


@pytest.mark.parametrize("family", FAMILIES)
def test_mlx_holds_what_its_graph_says_whatever_the_architecture(held_by_mlx, family):
    module = importlib.import_module(f"mlx_lm.models.{family}")
    values = {"model_type": family, **SHAPE, **FAMILIES[family]}
    model = module.Model(module.ModelArgs.from_dict(values))
    model.freeze()
    adapters.attach(model, AdapterSettings(layers="last:2"))
    model.train()
    read = tape.kept(tape.Outline(model), 4, 64)
    held = held_by_mlx(SplitModel(model), 4, 64)
    assert read.scores + read.others == pytest.approx(held, rel=0.06)
