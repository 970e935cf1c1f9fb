"""Loss and adapter gradients on the demo model, against PyTorch in float64.

The model, LoRA and the four losses are written out here from the papers, on the real
weights and real text; nothing of the package is used for the reference.
"""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten

from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.render import render
from mlx_rsft.loss import Recipe
from mlx_rsft.models import adapters, load
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings, ModelSettings
from mlx_rsft.training.gradient import gradient
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper

ADAPTER = AdapterSettings(rank=4, scale=2.0, layers="last:2")
TEXTS = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Note: pump 3 leaks oil at the seal, shift 2", "defect: leak; action: reseal"),
    ("Why does the sky look blue?", "Blue light scatters more than red light does."),
]


# What float64 leaves is in MLX's RoPE and exponential, which are float32 inside. In
# float32 thirty layers of rounding move a log-probability by 3e-5, DFT's loss by 2e-4 of
# itself, and the gradient of a query projection by up to 1.4e-3; the float64 row is the
# one that tells right from wrong.
TOLERANCE = {mx.float64: 1e-4, mx.float32: 5e-3}


@pytest.fixture(scope="module")
def real(demo_gguf):
    """The demo model with an adapter that is not zero, its examples, its config."""
    loaded = load.load(ModelSettings(source=str(demo_gguf), precision="float32"))
    examples = [
        render(
            Conversation((Message("user", q), Message("assistant", a)), "f:1"),
            loaded.tokenizer,
        )[0]
        for q, a in TEXTS
    ]
    mx.random.seed(0)
    adapters.attach(loaded.model, ADAPTER)
    leaves = tree_flatten(loaded.model.trainable_parameters())
    noise = [(name, x + 0.02 * mx.random.normal(x.shape)) for name, x in leaves]
    loaded.model.load_weights(noise, strict=False)
    config = json.loads((loaded.path / "config.json").read_text())
    return loaded.model, examples, config


@pytest.fixture(scope="module", params=list(TOLERANCE), ids=str)
def case(real, request):
    """The split model in one type of numbers, and its examples."""
    model, examples, _ = real
    model.set_dtype(request.param)  # from float64 back to float32 nothing is lost
    return SplitModel(model), examples, request.param


def _ours(case, text):
    split, examples, *_ = case
    objective = build({"name": text})
    stepper = Stepper(
        split,
        objective,
        None,  # no update is made here
        References(split, objective),
        token_budget=4096,
        clip_norm=0.0,
    )
    pieces = stepper.pieces(examples, 1.0)
    recipe = Recipe(objective.weight, objective.head_facts, objective.pulls)
    sums, grads = gradient(Passes(split), pieces, recipe)
    flat = {n: np.array(g, np.float64) for n, g in tree_flatten(grads)}
    return sums.totals().objective, flat


class Llama:
    """A llama with LoRA, in float64, from its published equations."""

    def __init__(self, model, config):
        named = tree_flatten(model.parameters())
        self.w = {n: torch.tensor(np.array(p), dtype=torch.float64) for n, p in named}
        self.lora = {
            n: w for n, w in self.w.items() if n.endswith(("lora_a", "lora_b"))
        }
        for weight in self.lora.values():
            weight.requires_grad_()
        self.config = config

    def linear(self, name, x, adapted):
        if f"{name}.lora_a" not in self.w:
            return x @ self.w[f"{name}.weight"].T
        y = x @ self.w[f"{name}.linear.weight"].T
        a, b = self.w[f"{name}.lora_a"], self.w[f"{name}.lora_b"]
        return y + ADAPTER.scale * (x @ a) @ b if adapted else y

    def norm(self, name, x):
        scale = torch.rsqrt(
            (x * x).mean(-1, keepdim=True) + self.config["rms_norm_eps"]
        )
        return x * scale * self.w[f"{name}.weight"]

    def rotated(self, x):
        half = x.shape[-1] // 2
        rate = self.config["rope_theta"] ** (-torch.arange(half).double() / half)
        angle = torch.arange(x.shape[-2]).double()[:, None] * rate
        first, second = x[..., :half], x[..., half:]
        cos, sin = torch.cos(angle), torch.sin(angle)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def attention(self, name, x, adapted):
        heads = self.config["num_attention_heads"]
        kv_heads = self.config["num_key_value_heads"]
        count, width = x.shape[0], self.config["hidden_size"] // heads

        def split(kind, number):
            y = self.linear(f"{name}.{kind}_proj", x, adapted)
            return y.reshape(count, number, width).transpose(0, 1)

        q = self.rotated(split("q", heads))
        k = self.rotated(split("k", kv_heads)).repeat_interleave(heads // kv_heads, 0)
        v = split("v", kv_heads).repeat_interleave(heads // kv_heads, 0)
        score = q @ k.transpose(-1, -2) / math.sqrt(width)
        causal = torch.ones(count, count).tril().bool()
        mixed = torch.softmax(score.masked_fill(~causal, -torch.inf), -1) @ v
        mixed = mixed.transpose(0, 1).reshape(count, -1)
        return self.linear(f"{name}.o_proj", mixed, adapted)

    def mlp(self, name, x, adapted):
        gate = self.linear(f"{name}.gate_proj", x, adapted)
        up = self.linear(f"{name}.up_proj", x, adapted)
        return self.linear(
            f"{name}.down_proj", torch.nn.functional.silu(gate) * up, adapted
        )

    def logits(self, tokens, *, adapted):
        x = self.w["model.embed_tokens.weight"][tokens]
        for n in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{n}"
            y = self.norm(f"{name}.input_layernorm", x)
            x = x + self.attention(f"{name}.self_attn", y, adapted)
            y = self.norm(f"{name}.post_attention_layernorm", x)
            x = x + self.mlp(f"{name}.mlp", y, adapted)
        return self.norm("model.norm", x) @ self.w["model.embed_tokens.weight"].T


def _sft(logp_NV, targets_N, base_NV):
    return -logp_NV.gather(1, targets_N[:, None])[:, 0]


def _dft(logp_NV, targets_N, base_NV):
    nll = _sft(logp_NV, targets_N, base_NV)
    return torch.exp(-nll).detach() * nll


def _asft(logp_NV, targets_N, base_NV):
    divergence = (torch.exp(base_NV) * (base_NV - logp_NV)).sum(-1)
    return _dft(logp_NV, targets_N, base_NV) + 0.05 * divergence


def _eaft(logp_NV, targets_N, base_NV):
    top = torch.topk(logp_NV.detach(), 20).values
    share = torch.log_softmax(top, -1)
    entropy = -(torch.exp(share) * share).sum(-1)
    return entropy / math.log(20) * _sft(logp_NV, targets_N, base_NV)


PAPERS = {
    "sft": _sft,
    "dft": _dft,
    "dft:anchor=kl,lambda=0.05": _asft,
    "eaft": _eaft,
}


@pytest.fixture(scope="module")
def reference(real):
    """Objective and gradients of every paper, from one float64 forward pass."""
    model, examples, config = real
    llama = Llama(model, config)
    totals = dict.fromkeys(PAPERS, 0.0)
    for example in examples:
        tokens = torch.tensor(example.tokens)
        (start, end) = example.spans[0]
        logp = torch.log_softmax(llama.logits(tokens, adapted=True), -1)
        with torch.no_grad():
            base = torch.log_softmax(llama.logits(tokens, adapted=False), -1)
        place = slice(start - 1, end - 1)
        for name, paper in PAPERS.items():
            lost = paper(logp[place], tokens[start:end], base[place])
            totals[name] = totals[name] + lost.sum()
    names = list(llama.lora)
    found = {}
    for name, total in totals.items():
        grads = torch.autograd.grad(
            total, [llama.lora[n] for n in names], retain_graph=True
        )
        flat = {n: g.numpy() for n, g in zip(names, grads, strict=True)}
        found[name] = (total.item(), flat)
    return found


@pytest.mark.parametrize("text", PAPERS)
def test_loss_and_adapter_gradients_equal_float64_within_rounding(
    case, reference, text
):
    close = TOLERANCE[case[-1]]
    total, grads = _ours(case, text)
    wanted, slopes = reference[text]
    assert total == pytest.approx(wanted, rel=close)
    assert set(grads) == set(slopes)
    for name, slope in slopes.items():
        apart = np.linalg.norm(grads[name] - slope) / np.linalg.norm(slope)
        assert apart < close, (name, apart)


def test_the_batch_has_padding_and_prompts_that_must_not_count(case):
    _, examples, *_ = case
    batch = collate(examples)
    assert batch.tokens_BT.size > batch.num_tokens > batch.targets_N.size > 20
