import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError, ModelError
from mlx_rsft.models import adapters
from mlx_rsft.settings import AdapterSettings

SETTINGS = AdapterSettings(rank=2, layers="last:2")
TOKENS = mx.arange(12)[None]


def _trained(settings=SETTINGS):
    """A tiny model with an adapter whose effect is large."""
    model = testing.tiny_model()
    mx.random.seed(1)
    config = adapters.attach(model, settings)
    model.update(
        _tree({n: mx.random.normal(p.shape) for n, p in _trainable(model).items()})
    )
    return model, config


def _trainable(model):
    return dict(tree_flatten(model.trainable_parameters()))


def _tree(flat):
    from mlx.utils import tree_unflatten

    return tree_unflatten(list(flat.items()))


def test_only_the_last_layers_are_trained():
    model, _ = _trained()
    names = _trainable(model)
    assert names
    assert {name.split(".")[2] for name in names} == {"1", "2"}
    assert {name.rsplit(".", 1)[1] for name in names} == {"lora_a", "lora_b"}


def test_all_means_every_layer():
    model, config = _trained(AdapterSettings(rank=2, layers="all"))
    assert {name.split(".")[2] for name in _trainable(model)} == {"0", "1", "2"}
    assert config["num_layers"] == 3


@pytest.mark.parametrize("layers", ["last:0", "last:4", "8", "first:2", "last:-1"])
def test_layers_that_the_model_lacks_are_refused(layers):
    with pytest.raises(ConfigError, match="has 3"):
        adapters.attach(testing.tiny_model(), AdapterSettings(layers=layers))


def test_stock_mlx_lm_loads_the_adapter_with_the_same_logits(tmp_path):
    from mlx_lm import load

    folder = testing.write_tiny_model(tmp_path / "model")
    model, config = _trained()
    adapters.save(model, config, tmp_path / "adapter")
    stock, _ = load(str(folder), adapter_path=str(tmp_path / "adapter"))
    bare, _ = load(str(folder))
    assert mx.allclose(stock(TOKENS), model(TOKENS), atol=1e-5).item()
    assert not mx.allclose(stock(TOKENS), bare(TOKENS), atol=0.1).item()


def test_saving_and_loading_gives_the_same_logits(tmp_path):
    model, config = _trained()
    adapters.save(model, config, tmp_path / "a")
    again = testing.tiny_model()
    adapters.load(again, tmp_path / "a")
    assert mx.array_equal(again(TOKENS), model(TOKENS)).item()


def test_an_adapter_that_does_not_fit_is_refused(tmp_path):
    model, config = _trained()
    folder = tmp_path / "a"
    adapters.save(model, config, folder)
    with pytest.raises(ModelError, match="cannot be loaded"):
        adapters.load(testing.tiny_model(hidden_size=48), folder)
    with pytest.raises(ModelError, match="cannot be loaded"):
        adapters.load(testing.tiny_model(), tmp_path / "gone")


def test_a_missing_tensor_is_noticed(tmp_path):
    model, config = _trained()
    folder = tmp_path / "a"
    adapters.save(model, config, folder)
    path = str(folder / "adapters.safetensors")
    tensors = mx.load(path)
    name = sorted(tensors)[0]
    mx.save_safetensors(path, {k: mx.array(v) for k, v in tensors.items() if k != name})
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        adapters.load(testing.tiny_model(), folder)


def test_the_adapter_configuration_names_nothing_of_this_machine(tmp_path):
    model, config = _trained()
    adapters.save(model, config, tmp_path / "a")
    written = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert set(written) == {"fine_tune_type", "num_layers", "lora_parameters"}


def test_the_first_trained_block_is_the_lowest_one_that_changes():
    model, _ = _trained()
    assert adapters.first_trained_block(model) == 1
    model.model.layers[0].self_attn.q_proj.unfreeze()
    assert adapters.first_trained_block(model) == 0


def test_a_trained_head_changes_nothing_below_the_first_trained_block():
    model = testing.tiny_model(tie_word_embeddings=False)
    adapters.attach(model, SETTINGS)
    model.lm_head.unfreeze()
    assert adapters.first_trained_block(model) == 1


def test_no_block_is_the_first_where_something_below_them_or_nothing_is_trained():
    frozen = testing.tiny_model()
    assert adapters.first_trained_block(frozen) is None
    model, _ = _trained()
    model.model.embed_tokens.unfreeze()
    assert adapters.first_trained_block(model) is None
    headed = testing.tiny_model(tie_word_embeddings=False)
    headed.lm_head.unfreeze()
    assert adapters.first_trained_block(headed) is None


def test_more_than_ten_blocks_are_told_apart():
    model = testing.tiny_model(num_hidden_layers=12)
    model.model.layers[11].self_attn.unfreeze()
    assert adapters.first_trained_block(model) == 11
    model.model.layers[1].self_attn.unfreeze()
    assert adapters.first_trained_block(model) == 1
