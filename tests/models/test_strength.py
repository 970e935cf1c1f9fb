import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.models.strength import Strength
from mlx_rsft.settings import AdapterSettings

TOKENS = mx.arange(40)[None]


def _tuned(method="lora", **settings):
    """A model with an adapter that acts, and the base's logits."""
    model = testing.tiny_model()
    base = model(TOKENS)
    mx.eval(base)
    if method == "lora":  # the embeddings, which are the head as well, too
        settings = {"keys": ("self_attn.q_proj", "model.embed_tokens"), **settings}
    adapters.attach(model, AdapterSettings(method=method, layers="all", **settings))
    mx.random.seed(2)
    for module in model.modules():
        if "lora_b" in module:
            module.lora_b = mx.random.normal(module.lora_b.shape) * 0.3
        if "m" in module:  # trained too, so that no scale alone gives the base back
            module.m = module.m * 1.2
    model.eval()
    return model, base


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_off_is_the_base_and_on_the_adapter_to_the_bit_however_often_it_turns(method):
    model, base = _tuned(method)
    adapted = model(TOKENS)
    assert mx.abs(adapted - base).max().item() > 0.1
    dial = Strength(model)
    for _ in range(3):
        dial.set(0)
        assert mx.array_equal(model(TOKENS), base).item()
        if method == "lora":
            dial.set(0.3)
        dial.set(1)
        assert mx.array_equal(model(TOKENS), adapted).item()


def test_half_strength_is_the_adapter_with_half_its_scale():
    model, _ = _tuned(scale=4.0)
    Strength(model).set(0.5)
    half, _ = _tuned(scale=2.0)
    assert mx.array_equal(model(TOKENS), half(TOKENS)).item()


def test_a_dora_is_on_or_off_and_says_so():
    model, _ = _tuned("dora")
    adapted = model(TOKENS)
    dial = Strength(model)
    with pytest.raises(ConfigError, match=r"_proj is a DoRA layer.*on or off"):
        dial.set(0.5)
    assert dial.weight == 1
    assert mx.array_equal(model(TOKENS), adapted).item()


def test_a_model_without_low_rank_layers_has_no_strength():
    with pytest.raises(ConfigError, match="no low-rank adapter"):
        Strength(testing.tiny_model())
    model, _ = _tuned()
    with pytest.raises(ConfigError, match="no number"):
        Strength(model).set(float("nan"))


def test_the_change_it_makes_is_measured_and_the_dial_left_alone():
    model, base = _tuned()
    adapted = model(TOKENS)
    dial = Strength(model)
    dial.set(0.5)
    assert dial.change(TOKENS) == mx.abs(adapted - base).max().item()
    assert dial.weight == 0.5
