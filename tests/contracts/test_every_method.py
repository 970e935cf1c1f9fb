"""What every way to train owes: the gradient, what is trained, and a loadable file."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import config, testing
from mlx_rsft.config import Layer
from mlx_rsft.data.batching import collate
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.loss import Recipe
from mlx_rsft.models import adapters
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Known, build
from mlx_rsft.settings import AdapterSettings
from mlx_rsft.training.gradient import Piece, gradient
from mlx_rsft.workflows import train
from mlx_rsft.workflows.reporter import Silent

# Every width is a multiple of 64, so that every kind of rounding fits.
WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TOKENS = mx.arange(3, 20)[None]
STORED = {
    "float32": None,
    "4": {"bits": 4, "group_size": 64, "mode": "affine"},
    "8": {"bits": 8, "group_size": 64, "mode": "affine"},
    "mxfp4": {"bits": 4, "group_size": 32, "mode": "mxfp4"},
}
SOME = ["self_attn.q_proj", "mlp.down_proj"]
METHODS = {
    "lora": {},
    "lora-rslora": {"rslora": True, "rank": 16},
    "lora-interior": {"layers": "0-1"},
    "lora-keys": {"keys": SOME},
    "lora-keys-interior": {"keys": [*SOME, "lm_head"], "layers": "1-1"},
    "lora-head": {"keys": ["lm_head"]},
    "lora-embeddings": {"keys": ["model.embed_tokens", "self_attn.v_proj"]},
    "lora-dropout": {"dropout": 0.3},
    "dora": {"method": "dora"},
    "dora-interior": {"method": "dora", "layers": "0-1", "keys": SOME},
    "full-everything": {"method": "full", "layers": "all"},
    "full-blocks": {"method": "full", "layers": "0-1"},
    "full-keys": {"method": "full", "keys": [*SOME, "model.norm"]},
}


def _wanted(method, settings):
    """Names of the parameters that are to be trained, spelled out by hand."""
    leaves = ["lora_a", "lora_b"] + ["m"] * (settings.get("method") == "dora")
    linear = [
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    ]
    norms = ["input_layernorm", "post_attention_layernorm"]
    blocks = {"0-1": [0, 1], "1-1": [1], "all": [0, 1, 2]}.get(
        settings.get("layers"), [1, 2]
    )
    full = settings.get("method") == "full"
    keys = settings.get("keys", linear + norms * full)
    outside = {"lm_head", "model.embed_tokens", "model.norm"}
    modules = [
        key if key in outside else f"model.layers.{block}.{key}"
        for key in keys
        for block in blocks
    ] + sorted(outside) * (method == "full-everything")
    return {f"{m}.{leaf}" for m in modules for leaf in (["weight"] if full else leaves)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same tiny model in every kind of storage; its head is not tied."""
    return {
        (name, tied): _write(
            tmp_path_factory.mktemp("models") / name, how, tie_word_embeddings=tied
        )
        for name, how in STORED.items()
        for tied in (True, False)
    }


def _write(folder, how, **changes):
    testing.write_tiny_model(folder, **WIDE, **changes)
    if how:
        model = testing.tiny_model(**WIDE, **changes)
        nn.quantize(model, **how)
        weights = dict(tree_flatten(model.parameters()))
        mx.save_safetensors(str(folder / "model.safetensors"), weights)
        settings = json.loads((folder / "config.json").read_text())
        settings["quantization"] = how
        (folder / "config.json").write_text(json.dumps(settings))
    return folder


def _prepare(folder, data, run_dir, stored, settings, **others):
    values = {
        "model.source": str(folder),
        "model.quantize": "none" if stored == "float32" else stored,
        "data.source": str(data),
        "objective.name": "sft",
        "adapter.layers": "last:2",
        "adapter.rank": 3,
        "optimizer.learning_rate": 0.03,
        "training.steps": 3,
        "training.batch_size": 4,
        **{f"adapter.{name}": value for name, value in settings.items()},
        **others,
    }
    if settings.get("method") == "full":
        del values["adapter.rank"]
    resolved = config.resolve([Layer(config.FLAG, values)])
    return train.prepare(resolved, run_dir, Silent())


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_is_what_was_asked_and_loads_in_stock_mlx_lm(
    method, stored, folders, tiny_data, tmp_path
):
    from mlx_lm.utils import load_adapters, load_model

    settings, folder = METHODS[method], folders[stored, False]
    run = tmp_path / "run"
    if settings.get("method") == "full" and stored != "float32":
        with pytest.raises(ConfigError, match="quantised and cannot be trained"):
            _prepare(folder, tiny_data, run, stored, settings)
        return
    job = _prepare(folder, tiny_data, run, stored, settings)
    model = job.loaded.model
    trained = dict(tree_flatten(model.trainable_parameters()))
    assert set(trained) == _wanted(method, settings)
    frozen = _frozen(model)
    train.train(job, run, Silent())
    model.eval()
    after = _frozen(model)
    assert all(mx.array_equal(after[name], frozen[name]).item() for name in frozen)
    now = dict(tree_flatten(model.trainable_parameters()))
    still = [n for n in now if mx.array_equal(now[n], trained[n]).item()]
    assert not still
    stock, _ = load_model(folder)
    bare = stock(TOKENS)
    mx.eval(bare)
    load_adapters(stock, str(run / "adapter"))
    stock.eval()
    # Sums in another order: quantised layers of float32 scales round to 1e-6.
    assert mx.allclose(stock(TOKENS), model(TOKENS), atol=1e-5).item()
    assert not mx.allclose(stock(TOKENS), bare, atol=1e-2).item()


def _frozen(model):
    held = dict(tree_flatten(model.parameters()))
    for name, _ in tree_flatten(model.trainable_parameters()):
        del held[name]
    return held


def _examples(vocabulary=testing.VOCABULARY):
    rng = np.random.default_rng(3)
    lengths = [7, 23, 12]
    return [
        Example(tuple(rng.integers(1, vocabulary - 3, n).tolist()), ((3, n),), "f")
        for n in lengths
    ]


def _stirred(model, settings):
    """An adapter whose every part matters: lora_b is not zero, m not the norm."""
    mx.random.seed(5)
    adapters.attach(model, settings)
    flat = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(n, p + 0.1 * mx.random.normal(p.shape)) for n, p in flat], strict=False
    )
    return model


def _naive(model, batch):
    """Gradient of the summed NLL through the model's own call, nothing split."""

    def loss(tokens):
        logits = model(tokens).reshape(-1, testing.VOCABULARY)
        logp = logits - mx.logsumexp(logits, -1, keepdims=True)
        return -logp[batch.rows_N, batch.targets_N].sum()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(batch.tokens_BT)[1]))


def _ours(model, batch):
    objective = build({"name": "sft"})
    recipe = Recipe(objective.weight, objective.head_facts, objective.pulls)
    _, grads = gradient(Passes(SplitModel(model)), [Piece(batch, Known())], recipe)
    return dict(tree_flatten(grads))


def _assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        # float32 sums in another order, relative to the largest of the tensor.
        bound = 1e-4 * mx.abs(wanted[name]).max().item() + 1e-6
        np.testing.assert_allclose(
            np.array(found[name]), np.array(wanted[name]), rtol=0, atol=bound
        )
        assert mx.abs(wanted[name]).max().item() > 0, name


GRADIENTS = {
    **{name: value for name, value in METHODS.items() if "dropout" not in name},
    "dora-embeddings": {"method": "dora", "keys": ["model.embed_tokens"]},
    "full-embeddings": {"method": "full", "keys": ["model.embed_tokens"]},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", GRADIENTS)
def test_the_gradient_is_that_of_the_whole_model_also_at_odd_sizes(method, tied):
    settings = dict(GRADIENTS[method])
    if tied:
        settings["keys"] = tuple(
            key for key in settings.get("keys", ()) if key != "lm_head"
        )
    odd = {"hidden_size": 39, "intermediate_size": 37}
    model = testing.tiny_model(**odd, head_dim=6, tie_word_embeddings=tied)
    chosen = AdapterSettings(**{"layers": "last:2", **settings})
    _stirred(model, chosen)
    batch = collate(_examples())
    _assert_same(_ours(model, batch), _naive(model, batch))


@pytest.mark.parametrize("stored", ["4", "8", "mxfp4"])
@pytest.mark.parametrize("method", ["lora", "dora", "lora-embeddings", "lora-head"])
def test_the_gradient_through_rounded_weights_is_that_of_the_weights_they_stand_for(
    method, stored
):
    from mlx_lm.utils import dequantize_model

    chosen = AdapterSettings(**{"layers": "all", **METHODS[method]})
    batch = collate(_examples())
    found = []
    for dequantised in (False, True):
        model = testing.tiny_model(**WIDE, tie_word_embeddings=False)
        nn.quantize(model, **STORED[stored])
        if dequantised:
            dequantize_model(model)
        model.freeze()
        _stirred(model, chosen)
        found.append((_naive if dequantised else _ours)(model, batch))
    _assert_same(*found)
