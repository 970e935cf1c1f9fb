import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import targets
from mlx_rsft.settings import AdapterSettings


def _choose(model=None, **settings):
    return targets.choose(model or testing.tiny_model(), AdapterSettings(**settings))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("all", [0, 1, 2, 3]),
        ("last:1", [3]),
        ("last:4", [0, 1, 2, 3]),
        ("0-0", [0]),
        ("1-2", [1, 2]),
        ("2-3", [2, 3]),
    ],
)
def test_blocks_are_counted_from_zero_with_both_ends_included(written, meant):
    assert list(targets.blocks(written, 4)) == meant


@pytest.mark.parametrize(
    "written", ["last:0", "last:5", "3", "2-4", "4-4", "2-1", "-1-2", "", "last:-1"]
)
def test_blocks_that_the_model_lacks_are_refused(written):
    with pytest.raises(ConfigError, match="which has 4") as caught:
        targets.blocks(written, 4)
    assert caught.value.where == "adapter.layers"


def test_blocks_up_to_the_last_are_told_to_the_loader_by_their_number():
    chosen = _choose(layers="1-2", keys=("mlp.up_proj",))
    assert (chosen.num_layers, chosen.keys) == (2, ("mlp.up_proj",))
    assert _choose(layers="last:2").keys is None


def test_blocks_that_end_earlier_are_told_by_their_full_names():
    chosen = _choose(layers="0-1", keys=("mlp.up_proj",))
    assert chosen.num_layers == 3
    assert set(chosen.keys) == {f"model.layers.{n}.mlp.up_proj" for n in (0, 1)}


@pytest.mark.parametrize(
    ("key", "offered"),
    [
        ("self_attn.q_porj", "'self_attn.q_proj'"),
        ("q_proj", "'self_attn.q_proj'"),
        ("embed_tokens", "'model.embed_tokens'"),
        ("model.layers.0.self_attn.q_proj", "'self_attn.q_proj'"),
        ("lm_head", "shares its weights with model.embed_tokens"),
    ],
)
def test_an_unknown_module_is_answered_with_the_nearest(key, offered):
    with pytest.raises(ConfigError, match=offered) as caught:
        _choose(layers="last:2", keys=("mlp.up_proj", key))
    assert repr(key) in str(caught.value)
    assert caught.value.where == "adapter.keys"


def test_every_unknown_module_is_reported():
    with pytest.raises(ConfigError, match=r"'a'[\s\S]*'b'"):
        _choose(layers="all", keys=("a", "b"))


def test_norms_are_trained_in_full_only():
    with pytest.raises(ConfigError, match="input_layernorm"):
        _choose(layers="all", keys=("input_layernorm",))
    chosen = _choose(layers="last:1", method="full", keys=("input_layernorm",))
    assert list(chosen.modules) == ["model.layers.2.input_layernorm"]


def test_a_module_of_some_blocks_only_is_found_where_it_is():
    model = testing.tiny_model()
    del model.model.layers[2].mlp
    chosen = _choose(model, layers="all", keys=("mlp.up_proj",))
    assert list(chosen.modules) == [f"model.layers.{n}.mlp.up_proj" for n in (0, 1)]
    with pytest.raises(ConfigError):
        _choose(model, layers="last:1", keys=("mlp.up_proj",))


def test_what_holds_the_blocks_is_no_module_to_train():
    for key in ("model", "zzz"):
        with pytest.raises(ConfigError, match=r"'model\.norm'|Known: [a-z]"):
            _choose(layers="all", method="full", keys=(key,))
