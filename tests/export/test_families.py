"""Every family of the table, held against transformers and PEFT, tensor by tensor."""

import warnings

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlx_rsft.export import EXPORTERS, torch_peft
from mlx_rsft.export.product import Choices
from mlx_rsft.export.reading import Row
from mlx_rsft.models import adapters
from mlx_rsft.models.families import FAMILIES

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
ROW = Row(tuple(range(3, 40)), 1, greedy=False)
# Both compute in float32, in other orders; 3 blocks.
ALLOWED = 5e-4


def _model(kind, folder):
    """A random model of mlx-lm, and its configuration as transformers reads it."""
    from mlx_lm.utils import _get_classes
    from transformers import AutoConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(kind)
        blocks = 6 if kind == "gemma3_text" else 3  # the last of six attends globally
        for name, value in {**SMALL, "num_hidden_layers": blocks}.items():
            if hasattr(config, name):
                setattr(config, name, value)
        for name in ("layer_types", "no_rope_layers"):
            if getattr(config, name, None):
                setattr(config, name, getattr(config, name)[:blocks])
        config.save_pretrained(folder)
    told = config.to_dict()
    if kind == "gemma3_text":
        rope = told["rope_parameters"]
        told["rope_theta"] = rope["full_attention"]["rope_theta"]
        told["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    told.setdefault("rope_theta", (told.get("rope_parameters") or {}).get("rope_theta"))
    if told["rope_theta"] is None:
        told["rope_theta"] = 10000.0
    kinds, arguments = _get_classes(told)
    mx.random.seed(0)
    model = kinds(arguments.from_dict(told))
    if getattr(config, "tie_word_embeddings", False) and hasattr(model, "lm_head"):
        model.pop("lm_head")
        model.tie_word_embeddings = True
    model.freeze()
    mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("kind", FAMILIES)
def test_peft_computes_what_the_live_adapter_does(kind, tmp_path, live_of):
    model = _model(kind, tmp_path)
    bare = model(mx.array([ROW.tokens]))
    mx.eval(bare)
    live = live_of(model, path=tmp_path, rank=4, layers="last:2")
    logits = live.model(mx.array([ROW.tokens]))
    out = tmp_path / "peft"
    out.mkdir()
    product = EXPORTERS["peft"].write(live, out, Choices())
    with torch_peft.read(live, product) as reader:
        theirs = reader.logits(ROW)
    apart = np.abs(theirs - np.array(logits[0, :-1])).max()
    assert np.abs(np.array(logits - bare)).max() > 100 * ALLOWED
    assert apart <= ALLOWED


MADE = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"down_proj": 3, r"layers\.[01]\..*\.q_proj": 6},
        "alpha_pattern": {"q_proj": 32},
    },
    "expression": {"target_modules": r".*\.(self_attn|mlp)\.(k_proj|up_proj)"},
    "rslora": {"target_modules": ["o_proj"], "use_rslora": True},
    "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "blocks": {
        "target_modules": ["q_proj"],
        "layers_to_transform": [0, 2],
        "layers_pattern": "layers",
    },
    "head": {"target_modules": ["lm_head", "embed_tokens", "up_proj"]},
}


@pytest.mark.parametrize("made", MADE)
def test_an_adapter_that_peft_made_gives_the_same_logits_here(made, tmp_path, live_of):
    import peft

    folder = tmp_path / "model"
    model = _model("qwen3", folder)
    bare = live_of(model, path=folder, rank=4, layers="last:1")
    adapter = tmp_path / "adapter"
    with torch_peft.bare(bare), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = torch_peft.base(bare, model)
        config = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **MADE[made])
        theirs = peft.get_peft_model(base, config).eval()
        torch.manual_seed(0)
        for name, value in theirs.named_parameters():
            if "lora_B" in name or "embedding_A" in name or "magnitude" in name:
                value.data += 0.2 * torch.rand(value.shape)
        theirs.save_pretrained(adapter)
        with torch.no_grad():
            expected = theirs(torch.tensor([ROW.tokens])).logits[0].numpy()
        before = model(mx.array([ROW.tokens]))
        adapters.load(model, adapter)
        found = model(mx.array([ROW.tokens]))
        assert np.abs(np.array(found[0]) - expected).max() <= ALLOWED
        assert mx.abs(found - before).max().item() > 100 * ALLOWED
