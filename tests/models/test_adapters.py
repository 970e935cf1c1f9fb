import json
from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import files, testing
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
    with pytest.raises(ModelError, match="cannot be read"):
        adapters.load(testing.tiny_model(), tmp_path / "gone")


def test_a_missing_tensor_is_noticed(tmp_path):
    model, config = _trained()
    folder = tmp_path / "a"
    adapters.save(model, config, folder)
    files.write_json(folder / "adapter_config.json", config)  # without its hashes
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
    told = {"fine_tune_type", "num_layers", "lora_parameters"}
    assert set(written) == told | {"sha256", "seal"}


@pytest.mark.parametrize("name", ["adapters.safetensors", "adapter_config.json"])
def test_an_adapter_with_a_flipped_bit_or_a_lost_end_is_refused_by_name(name, tmp_path):
    model, config = _trained()
    adapters.save(model, config, tmp_path)
    whole = (tmp_path / name).read_bytes()
    for at in range(0, len(whole) - 1, len(whole) // 30):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        for damaged in (bytes(flipped), whole[:at]):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ModelError, match=name.replace(".", r"\.")):
                adapters.load(testing.tiny_model(), tmp_path)


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


@pytest.mark.parametrize(("rslora", "written"), [(False, 6.0), (True, 1.5)])
def test_the_file_holds_the_multiplier_itself_whatever_scale_means(rslora, written):
    settings = AdapterSettings(rank=16, scale=6.0, rslora=rslora, layers="last:1")
    model = testing.tiny_model()
    config = adapters.attach(model, settings)
    assert config["lora_parameters"]["scale"] == pytest.approx(written)
    assert model.layers[2].self_attn.q_proj.scale == pytest.approx(written)


@pytest.mark.parametrize(
    ("name", "value"), [("rank", 4), ("scale", 1.0), ("rslora", True), ("dropout", 0.1)]
)
def test_full_fine_tuning_refuses_what_only_factors_have(name, value):
    settings = AdapterSettings(method="full", **{name: value})
    with pytest.raises(ConfigError, match=f"no {name}"):
        adapters.attach(testing.tiny_model(), settings)


@pytest.mark.parametrize(
    ("bits", "keys", "said"),
    [
        (3, (), r"self_attn\.q_proj has 3-bit"),
        (5, (), "5-bit"),
        (6, (), "6-bit"),
        (4, ("model.embed_tokens",), "model.embed_tokens is a quantised embedding"),
    ],
)
def test_bases_that_dora_cannot_wrap_are_refused_by_name(bits, keys, said):
    import mlx.nn as nn

    wide = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64}
    model = testing.tiny_model(**wide)
    nn.quantize(model, group_size=64, bits=bits)
    with pytest.raises(ConfigError, match=said) as caught:
        adapters.attach(model, AdapterSettings(method="dora", layers="all", keys=keys))
    assert "Choose lora" in str(caught.value)
    lora = AdapterSettings(method="lora", layers="all", keys=keys)
    adapters.attach(model, lora)
    assert mx.isfinite(model(TOKENS)).all().item()


def _experts():
    from mlx_lm.models import qwen3_moe

    args = qwen3_moe.ModelArgs.from_dict(
        testing.tiny_config(
            model_type="qwen3_moe",
            num_experts=4,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            moe_intermediate_size=16,
            head_dim=8,
            max_position_embeddings=64,
            norm_topk_prob=True,
        )
    )
    model = qwen3_moe.Model(args)
    model.freeze()
    return model


def test_experts_take_lora_and_refuse_dora_by_name(tmp_path):
    from mlx_lm.tuner.utils import load_adapters

    with pytest.raises(ConfigError, match=r"switch_mlp\.up_proj is a SwitchLinear"):
        adapters.attach(_experts(), AdapterSettings(method="dora", layers="all"))
    key = ("mlp.switch_mlp.up_proj", "mlp.gate")
    model = _experts()
    config = adapters.attach(model, AdapterSettings(layers="0-1", keys=key))
    model.update(
        _tree({n: mx.random.normal(p.shape) for n, p in _trainable(model).items()})
    )
    assert len(_trainable(model)) == 2 * 2 * 2
    adapters.save(model, config, tmp_path / "a")
    again = _experts()
    again.load_weights(
        [
            (name.replace(".linear.", "."), value)
            for name, value in tree_flatten(model.parameters())
            if "lora" not in name
        ]
    )
    load_adapters(again, str(tmp_path / "a"))
    assert mx.allclose(again(TOKENS), model(TOKENS), atol=1e-5).item()


def test_a_row_of_zeros_has_no_direction_for_dora():
    model = testing.tiny_model()
    model.model.embed_tokens.weight[7] = 0
    settings = AdapterSettings(method="dora", keys=("model.embed_tokens",))
    with pytest.raises(ConfigError, match=r"embed_tokens has rows of zeros"):
        adapters.attach(model, replace(settings, layers="all"))


def test_full_fine_tuning_in_float16_is_refused():
    model = testing.tiny_model()
    model.set_dtype(mx.float16)
    with pytest.raises(ConfigError, match="float16"):
        adapters.attach(model, AdapterSettings(method="full", layers="all"))


def test_a_trained_embedding_of_full_fine_tuning_loads_again(tmp_path):
    model = testing.tiny_model()
    config = adapters.attach(model, AdapterSettings(method="full", layers="all"))
    model.update(_tree({n: p + 0.1 for n, p in _trainable(model).items()}))
    adapters.save(model, config, tmp_path / "a")
    again = testing.tiny_model()
    adapters.load(again, tmp_path / "a")
    assert mx.array_equal(again(TOKENS), model(TOKENS)).item()


def test_a_missing_magnitude_is_noticed(tmp_path):
    model, config = _trained(AdapterSettings(method="dora", rank=2, layers="last:1"))
    adapters.save(model, config, tmp_path / "a")
    files.write_json(tmp_path / "a" / "adapter_config.json", config)
    path = str(tmp_path / "a" / "adapters.safetensors")
    kept = {k: mx.array(v) for k, v in mx.load(path).items() if not k.endswith(".m")}
    mx.save_safetensors(path, kept)
    with pytest.raises(ModelError, match="lacks 7 tensors"):
        adapters.load(testing.tiny_model(), tmp_path / "a")


@pytest.mark.parametrize("training", [False, True])
def test_fresh_layers_are_in_the_mode_of_their_model(training):
    model = testing.tiny_model()
    model.train(training)
    adapters.attach(model, replace(SETTINGS, dropout=0.5))
    assert {part.training for _, part in model.named_modules()} == {training}
