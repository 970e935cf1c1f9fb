import importlib

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import lanes, machine, testing
from mlx_rsft.models import cpu_kernels, seam
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128,
    "rope_theta": 10000.0,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
MIXED = ["sliding_attention", "full_attention"] * 3
GRANITE = {
    "logits_scaling": 2.0,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_bias": False,
    "mlp_bias": False,
}
LFM2 = {
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 32,
    "block_multiple_of": 8,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
    "layer_types": ["conv", "full_attention", "conv"] * 2,
}
GEMMA3 = {"sliding_window": 7, "sliding_window_pattern": 3, "query_pre_attn_scalar": 8}
MINISTRAL = {
    "sliding_window": 7,
    "layer_types": MIXED,
    "rope_parameters": {
        "rope_theta": 10000.0,
        "llama_4_scaling_beta": 0.1,
        "original_max_position_embeddings": 8,
    },
}
MODELS = {
    "llama": {},
    "llama with sliding windows": {"sliding_window": 7, "layer_types": MIXED},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"attn_logit_softcapping": 20.0},
    "gemma3_text": GEMMA3,
    "phi3": {},
    "smollm3": {},
    "granite": GRANITE,
    "olmo2": {},
    "lfm2": LFM2,
    "ministral3": MINISTRAL,
    "cohere2": {"sliding_window": 7, "layer_norm_eps": 1e-5, "logit_scale": 0.1},
    "exaone4": {
        "sliding_window": 7,
        "sliding_window_pattern": "LLG",
        "rope_scaling": None,
    },
}
TOKENS = (mx.arange(57).reshape(3, 19) * 11) % 128
DEPTHS = (1, 3, 4, 5)


def small_model(kind):
    """A random model of mlx-lm's, with an adapter whose effect is large on top."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    name = kind.split()[0]
    module = importlib.import_module(f"mlx_lm.models.{name}")
    arguments = {**SMALL, "model_type": name, **MODELS[kind]}
    mx.random.seed(3)
    model = module.Model(module.ModelArgs.from_dict(arguments))
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 2, "scale": 4.0, "dropout": 0.0})
    for name, value in tree_flatten(model.trainable_parameters()):
        model.load_weights([(name, mx.random.normal(value.shape))], strict=False)
    mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_on_given_trunk_states_computes_the_very_same(kind):
    split = SplitModel(small_model(kind))
    plain = split.hidden(TOKENS)
    for depth in DEPTHS:
        trunk = split.trunk(TOKENS, depth)
        assert mx.array_equal(split.hidden(TOKENS, trunk), plain).item(), depth


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_on_given_trunk_states_are_bit_for_bit_the_same(kind):
    model = small_model(kind)
    split = SplitModel(model)
    rows = mx.array([3, 18, 30, 55])
    trunk = split.trunk(TOKENS, 4)
    mx.eval(trunk)

    def loss(trunk):
        hidden = split.supervised(TOKENS, rows, trunk)
        return mx.square(split.head(hidden)).sum()

    differentiate = nn.value_and_grad(model, loss)
    with_trunk = dict(tree_flatten(differentiate(trunk)[1]))
    without = dict(tree_flatten(differentiate(None)[1]))
    assert without
    assert with_trunk.keys() == without.keys()
    for name, grad in without.items():
        assert mx.any(grad != 0).item(), name
        assert mx.array_equal(grad, with_trunk[name]).item(), name


def test_supervised_positions_are_those_of_the_given_states():
    split = SplitModel(testing.tiny_model())
    trunk = TrunkStates(2, mx.random.normal((3, 19, 24)))
    rows = mx.array([3, 18, 30, 55])
    whole = split.hidden(TOKENS, trunk).reshape(-1, 24)[rows]
    found = split.supervised(TOKENS, rows, trunk)
    assert mx.allclose(found, whole, atol=1e-5).item()
    plain = split.supervised(TOKENS, rows)
    assert not mx.allclose(whole, plain, atol=0.1).item()


class Counting:
    """A block that counts how often it is called and is otherwise that block."""

    def __init__(self, block):
        self.block, self.calls = block, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.block(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.block, name)


def test_each_block_runs_on_one_side_only():
    split = SplitModel(testing.tiny_model(num_hidden_layers=5))
    blocks = [Counting(block) for block in split.backbone["layers"]]
    split.backbone["layers"] = blocks
    trunk = split.trunk(TOKENS, 3)
    assert [block.calls for block in blocks] == [1, 1, 1, 0, 0]
    split.hidden(TOKENS, trunk)
    assert [block.calls for block in blocks] == [1, 1, 1, 1, 1]


def test_the_blocks_are_back_in_place_also_after_an_error():
    split = SplitModel(testing.tiny_model())
    blocks = list(split.backbone["layers"])
    wrong = TrunkStates(1, mx.zeros((3, 19, 7)))
    with pytest.raises(ValueError, match=r"\S"):
        split.hidden(TOKENS, wrong)
    assert split.backbone["layers"] == blocks


def test_states_of_another_batch_are_refused():
    split = SplitModel(testing.tiny_model())
    trunk = split.trunk(TOKENS[:2], 1)
    with pytest.raises(AssertionError):
        split.hidden(TOKENS, trunk)


def test_trunk_states_pass_through_compilation(monkeypatch):
    # On the CPU backend, where nothing is compiled, stand-ins compute at once.
    monkeypatch.setattr(cpu_kernels.machine, "backend", lambda: "metal")
    split = SplitModel(testing.tiny_model())
    trunk = split.trunk(TOKENS, 2)

    @mx.compile
    def above(tokens, values):
        return split.hidden(tokens, TrunkStates(2, values))

    whole = split.hidden(TOKENS)
    assert mx.allclose(above(TOKENS, trunk.values_BTD), whole, atol=1e-5).item()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("depth", [0, 3])
def test_block_by_block_a_forward_pass_gives_the_very_same(kind, depth, monkeypatch):
    split = SplitModel(small_model(kind))
    rows = mx.array([3, 18, 30, 55])
    trunk = split.trunk(TOKENS, depth) if depth else None

    def forward():
        return split.supervised(TOKENS, rows, trunk)

    def asked():
        steps = []

        def job():
            each = seam.by_block(forward)
            while True:
                try:
                    (array,) = next(each)
                except StopIteration as end:
                    return end.value
                steps.append(array)
                yield [array]

        (states,) = lanes.together([job()])
        return steps, states

    steps, states = asked()
    assert mx.array_equal(states, forward()).item()
    assert steps[-1] is states
    assert len(steps) == split.num_blocks + 1
    # What the last block gets stands before it, computed on its own.
    before = split.trunk(TOKENS, split.num_blocks - 1).values_BTD
    assert mx.array_equal(steps[-3], before).item()
    assert not any(isinstance(one, seam.StandIn) for one in split.backbone["layers"])
    monkeypatch.setattr(machine, "backend", lambda: "metal")
    (only,), alone = asked()
    assert only is alone


def test_nothing_is_noted_after_a_pass_that_failed():
    split = SplitModel(small_model(next(iter(MODELS))))

    def failing():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        next(seam.by_block(failing))
    differentiate = nn.value_and_grad(split.model, lambda: split.hidden(TOKENS).sum())
    assert mx.isfinite(differentiate()[0]).item()
    assert seam._noted is None
