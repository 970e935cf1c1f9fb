import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from mlx_lm import generate
from mlx_lm import load as stock_load
from transformers import AutoConfig, Gemma3ForCausalLM

from mlx_rsft import loss
from mlx_rsft.loss import Recipe
from mlx_rsft.models import load
from mlx_rsft.models.gguf import convert
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import ModelSettings

PROMPT = "The three primary colours are red, yellow and blue. Water boils at"
# Both sides compute in float32, but llama.cpp looks GELU up in a table of float16, which
# moves these log-probabilities by up to 2e-3. What a file can say wrong moves them by
# more than 0.25.
TOLERANCE_NATS = 5e-3


@pytest.fixture(scope="module")
def gemma(gemma_folder):
    """The real model as a run has it: every weight in float32."""
    settings = ModelSettings(source=str(gemma_folder), precision="float32")
    return load.load(settings)


def as_it_is(model):
    pass


def linear_scaling(model):
    model.metadata["gemma3.rope.scaling.type"] = "linear"
    model.metadata["gemma3.rope.scaling.factor"] = 8.0


def another_rope_base(model):
    model.metadata["gemma3.rope.freq_base"] = 300000.0


def another_window(model):
    model.metadata["gemma3.attention.sliding_window"] = 100


def what_is_mostly_assumed(model):
    model.metadata["gemma3.attention.sliding_window_pattern"] = 3
    model.metadata["gemma3.rope.freq_base_swa"] = 500.0


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (as_it_is, {}),
        (as_it_is, {"tied": False}),
        (as_it_is, {"head_dim": 32}),
        (as_it_is, {"head_dim": 32, "layers": 62, "wide": 32}),
        (linear_scaling, {}),
        (another_rope_base, {}),
        (another_window, {}),
        (what_is_mostly_assumed, {}),
    ],
)
def test_log_probabilities_are_those_of_llama_cpp(
    tiny_gemma, tmp_path, llama_cpp, change, shape
):
    model = tiny_gemma(**shape)
    change(model)
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    ours, _ = stock_load(str(tmp_path / "model"))
    ids = [(7 * i * i + 3 * i) % 900 for i in range(200)]
    logits = ours(mx.array([ids]))[0, -1]
    log_probs = logits - mx.logsumexp(logits)
    theirs = llama_cpp(path).log_probs(ids, 20)
    gaps = [abs(log_probs[at].item() - theirs[at]) for at in theirs]
    assert max(gaps) < TOLERANCE_NATS


def test_mlx_and_transformers_read_the_same_model(tiny_gemma, tmp_path):
    model = tiny_gemma()
    linear_scaling(model)
    what_is_mostly_assumed(model)
    folder = tmp_path / "model"
    convert(model.write(tmp_path / "m.gguf"), folder, float_type="float32")
    ours = stock_load(str(folder))[0].args
    theirs = AutoConfig.from_pretrained(folder)
    assert (ours.rope_theta, ours.rope_local_base_freq) == (1e6, 500.0)
    linear = {"rope_type": "linear", "factor": 8.0}
    assert ours.rope_scaling == linear
    assert dict(theirs.rope_parameters["full_attention"]) == {
        "rope_theta": 1e6,
        **linear,
    }
    assert dict(theirs.rope_parameters["sliding_attention"]) == {
        "rope_theta": 500.0,
        "rope_type": "default",
    }
    short, full = "sliding_attention", "full_attention"
    assert theirs.layer_types == [short, short, full] * 2
    for name in (
        *("sliding_window", "query_pre_attn_scalar", "head_dim", "rms_norm_eps"),
        *("vocab_size", "max_position_embeddings", "num_key_value_heads"),
    ):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gemma3.final_logit_softcapping", 30.0, "has no counterpart in MLX's gemma3"),
        ("gemma3.attn_logit_softcapping", 50.0, "has no counterpart in MLX's gemma3"),
        ("gemma3.attention.causal", False, "has no counterpart in MLX's gemma3"),
        ("gemma3.rope.scaling.type", "yarn", "type 'yarn'"),
        ("gemma3.attention.sliding_window", 0, "sliding_window' is 0"),
        ("gemma3.attention.sliding_window_pattern", [True], "of type list, not int"),
        ("gemma3.attention.value_length", 32, "differs from the head width, 64"),
    ],
)
def test_what_mlx_cannot_express_is_refused_by_name(
    tiny_gemma, refusal, tmp_path, key, value, message
):
    model = tiny_gemma()
    model.metadata[key] = value
    assert message in refusal(model.write(tmp_path / "m.gguf"))


def test_sixteen_bits_are_bfloat16(tiny_gemma, tmp_path):
    folder = tmp_path / "model"
    convert(tiny_gemma().write(tmp_path / "m.gguf"), folder, float_type="half")
    loaded, _ = stock_load(str(folder))
    assert {value.dtype for _, value in tree_flatten(loaded.parameters())} == {
        mx.bfloat16
    }
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16


def test_a_missing_norm_is_refused_by_name(tiny_gemma, refusal, tmp_path):
    model = tiny_gemma()
    del model.tensors["blk.3.attn_k_norm.weight"]
    path = model.write(tmp_path / "m.gguf")
    assert refusal(path) == "blk.3.attn_k_norm.weight is missing"


def log_probs(logits):
    wide = np.array(logits).astype(np.float64)
    top = wide.max(-1, keepdims=True)
    return wide - top - np.log(np.exp(wide - top).sum(-1, keepdims=True))


def test_log_probabilities_of_the_real_model_are_near_those_of_llama_cpp(
    gemma, gemma_llama_cpp
):
    ids = gemma.tokenizer.encode(PROMPT)
    ours = log_probs(gemma.model(mx.array([ids]))[0])
    gaps = [
        abs(ours[length - 1, at] - theirs)
        for length in range(3, len(ids) + 1, 3)
        for at, theirs in gemma_llama_cpp.log_probs(ids[:length], 10).items()
    ]
    # llama.cpp rounds activations to 8 bits before it multiplies quantised weights:
    # 0.12 on average over all prefixes, with MLX's rounded embedding scale or without.
    assert np.mean(gaps) < 0.15


def test_what_the_real_model_finds_most_likely_is_what_llama_cpp_does(
    gemma, gemma_llama_cpp
):
    ids = gemma.tokenizer.encode("Water boils at")
    ours = generate(gemma.model, gemma.tokenizer, ids, max_tokens=8)
    assert ours == gemma_llama_cpp.continued(ids, 8)
    assert "100 degrees" in ours


def test_the_real_model_gives_the_logits_of_pytorch(gemma):
    weights = {
        name: torch.from_numpy(np.array(value))
        for name, value in tree_flatten(gemma.model.parameters())
    }
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    config = AutoConfig.from_pretrained(gemma.path)
    theirs = Gemma3ForCausalLM.from_pretrained(None, config=config, state_dict=weights)
    scale = theirs.model.embed_tokens.embed_scale
    scale.copy_(scale.bfloat16())  # as MLX's model has it: 25.25 for 25.298
    ids = gemma.tokenizer.encode(PROMPT)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    apart = np.abs(np.array(gemma.model(mx.array([ids]))[0]) - expected).max()
    # Float32 sums in another order: 4e-5 of logits up to 29. Ten times that leaves room
    # for another BLAS; the scale left unrounded gives 0.09.
    assert apart < 4e-4


def test_the_head_is_split_off_and_chunks_give_the_loss_of_the_whole(gemma):
    split = SplitModel(gemma.model)
    ids = mx.array(gemma.tokenizer.encode(PROMPT))
    hidden = split.supervised(ids[None], mx.arange(len(ids) - 1))
    objective = build({"name": "dft"})
    recipe = Recipe(objective.weight, objective.head_facts, objective.pulls)

    def loss_by(engine, **options):
        found = engine(split.head, hidden, ids[1:], recipe, **options)
        return found.sums.objective, found.hidden_ND

    whole, slope = loss_by(loss.dense)
    five_rows = 4 * gemma.model.args.vocab_size * 5
    chunked, chunked_slope = loss_by(loss.fused, chunk_bytes=five_rows)
    # Float32 sums of 262,144 exponentials.
    assert chunked.item() == pytest.approx(whole.item(), rel=1e-5)
    assert mx.abs(slope - chunked_slope).max() < 1e-4 * mx.abs(slope).max()
