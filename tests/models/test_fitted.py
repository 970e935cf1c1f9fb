import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.models.fitted import OffSwitch, places, remove
from mlx_rsft.settings import AdapterSettings

TOKENS = mx.arange(12)[None]
KINDS = {
    "lora": {},
    "dora": {"method": "dora"},
    "lora-embeddings": {"keys": ("model.embed_tokens", "self_attn.q_proj")},
    "dora-embeddings": {"method": "dora", "keys": ("model.embed_tokens",)},
}


def _moved(bits, **settings):
    model = testing.tiny_model(hidden_size=64, num_attention_heads=4)
    if bits:
        nn.quantize(
            model,
            group_size=64,
            bits=bits,
            class_predicate=lambda _, m: (
                hasattr(m, "to_quantized") and m.weight.shape[-1] == 64
            ),
        )
        model.freeze()
    before = model(TOKENS)
    mx.eval(before)
    adapters.attach(model, AdapterSettings(layers="last:2", **settings))
    flat = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(n, p + mx.random.normal(p.shape)) for n, p in flat], strict=False
    )
    return model, before


@pytest.mark.parametrize(
    ("kind", "bits"),
    [*((kind, None) for kind in KINDS), ("lora", 4), ("dora", 4)],
)
def test_without_its_adapter_a_model_is_exactly_the_base_and_then_itself_again(
    kind, bits
):
    model, before = _moved(bits, **KINDS[kind])
    after = model(TOKENS)
    mx.eval(after)
    assert not mx.allclose(after, before, atol=0.1).item()
    names = list(dict(tree_flatten(model.parameters())))
    with OffSwitch(model).off():
        assert mx.array_equal(model(TOKENS), before).item()
    assert mx.array_equal(model(TOKENS), after).item()
    assert list(dict(tree_flatten(model.parameters()))) == names


def test_the_adapter_comes_back_after_an_error():
    model, _ = _moved(None)
    with pytest.raises(KeyError), OffSwitch(model).off():
        raise KeyError
    assert tree_flatten(model.trainable_parameters())


def test_a_model_without_an_adapter_is_its_own_base():
    model = testing.tiny_model()
    before = model(TOKENS)
    with OffSwitch(model).off():
        assert mx.array_equal(model(TOKENS), before).item()


@pytest.mark.parametrize("extra", ["norm", "layers"])
def test_a_base_whose_own_weights_are_trained_is_refused(extra):
    model, _ = _moved(None)
    part = model.model.norm if extra == "norm" else model.model.layers[0]
    part.unfreeze()
    with pytest.raises(ConfigError, match="own weights"):
        OffSwitch(model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_is_taken_off_leaves_the_base_and_room_for_another(kind):
    model, before = _moved(0, **KINDS[kind])
    remove(model)
    assert places(model) == []
    assert not tree_flatten(model.trainable_parameters())
    assert mx.array_equal(model(TOKENS), before)
    adapters.attach(model, AdapterSettings(layers="last:1"))
    assert len(places(model)) == 7
