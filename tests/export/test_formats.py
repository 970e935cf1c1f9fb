"""What is in the files, and what they refuse to hold."""

import json

import gguf
import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ConfigError
from mlx_rsft.export import EXPORTERS, rounding, stacks, verify
from mlx_rsft.export.gguf_lora import TYPES
from mlx_rsft.export.live import factors
from mlx_rsft.export.product import Choices
from mlx_rsft.export.svd import as_lora, delta
from mlx_rsft.models import adapters, fitted

TOKENS = mx.arange(12)[None]


def _config(product):
    return json.loads((product.path / "adapter_config.json").read_text())


@pytest.mark.parametrize(
    ("scale", "rank", "alpha"), [(4.0, 4, 16), (0.3, 4, 4), (2**0.5, 8, 8), (1.5, 2, 3)]
)
def test_peft_gets_one_rank_and_a_whole_alpha(tiny_live, tmp_path, scale, rank, alpha):
    live = tiny_live(scale=scale, rank=rank)
    product = EXPORTERS["peft"].write(live, tmp_path, Choices())
    config = _config(product)
    assert (config["r"], config["lora_alpha"]) == (rank, alpha)
    assert type(config["lora_alpha"]) is int
    assert not any(
        key.endswith("pattern") and config[key] != "layers" for key in config
    )
    logits = live.model(TOKENS)
    mx.eval(logits)
    fitted.remove(live.model)
    adapters.load(live.model, tmp_path)
    assert mx.allclose(live.model(TOKENS), logits, atol=1e-4).item()


def test_places_of_other_ranks_are_padded_and_other_scales_multiplied_in(
    tiny_live, tmp_path
):
    live = tiny_live(layers="all")
    places = fitted.places(live.model)
    first = places[0].module
    first.lora_a, first.lora_b = first.lora_a[:, :2], first.lora_b[:2]
    places[1].module.scale = 7.5
    config = _config(EXPORTERS["peft"].write(live, tmp_path, Choices()))
    assert config["r"] == config["lora_alpha"] == 4
    logits = live.model(TOKENS)
    mx.eval(logits)
    fitted.remove(live.model)
    adapters.load(live.model, tmp_path)
    assert mx.allclose(live.model(TOKENS), logits, atol=1e-4).item()


def test_the_file_says_that_it_is_of_pytorch(tiny_live, tmp_path):
    EXPORTERS["peft"].write(tiny_live(), tmp_path, Choices())
    path = str(tmp_path / "adapter_model.safetensors")
    assert mx.load(path, return_metadata=True)[1]["format"] == "pt"


@pytest.mark.parametrize("kind", TYPES)
def test_a_gguf_file_of_every_type_is_read_as_what_was_trained(
    tiny_live, tmp_path, kind
):
    live = tiny_live(rank=32, layers="all")
    product = EXPORTERS["gguf"].write(live, tmp_path, Choices(kind))
    reader = gguf.GGUFReader(product.path)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["adapter.lora.alpha"].contents() == 4.0 * 32
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    assert kind.upper() in kinds
    verdict = verify.verify(live, product, verify.questions(live), "gguf")
    assert verdict.verified
    assert verdict.gaps.largest <= 1e-3
    assert ("by choice" in verdict.note) == (kind != "f32")


UNTIED = {"tie_word_embeddings": False}


def test_modules_that_a_format_cannot_hold_are_refused_by_name(tiny_live, tmp_path):
    keys = ("model.embed_tokens", "self_attn.q_proj")
    tied = tiny_live(keys=keys)
    with pytest.raises(ConfigError, match=r"model\.embed_tokens is the head too"):
        EXPORTERS["peft"].write(tied, tmp_path, Choices())
    with pytest.raises(ConfigError, match=r"model\.embed_tokens is not adapted"):
        EXPORTERS["gguf"].write(tied, tmp_path, Choices())
    untied = tiny_live(changes=UNTIED, keys=("model.embed_tokens", "lm_head"))
    EXPORTERS["peft"].write(untied, tmp_path, Choices())
    strange = tiny_live()
    strange.model.model_type = "strange"
    for target in ("peft", "gguf"):
        with pytest.raises(ConfigError, match="a strange model is not known"):
            EXPORTERS[target].write(strange, tmp_path, Choices())


@pytest.mark.parametrize("target", ["mlx", "peft", "gguf"])
def test_whole_weights_are_no_adapter(target, tmp_path, live_of):
    model = testing.tiny_model()
    live = live_of(model, method="full", layers="last:1", size=0.0)
    with pytest.raises(ConfigError, match="fused"):
        EXPORTERS[target].write(live, tmp_path, Choices())


def test_a_dora_is_refused_by_gguf_unless_its_nearest_lora_is_asked_for(
    tiny_live, tmp_path
):
    live = tiny_live(method="dora")
    with pytest.raises(ConfigError, match=r"gguf-merged.*--dora-as-lora"):
        EXPORTERS["gguf"].write(live, tmp_path, Choices())
    asked = verify.questions(live)
    product = EXPORTERS["gguf"].write(live, tmp_path, Choices(dora_as_lora=16))
    assert "of rank 16" in product.notes[0]
    verdict = verify.verify(live, product, asked, "gguf")
    assert verdict.verified
    assert "of its effect, by choice" in verdict.note
    few = EXPORTERS["gguf"].write(live, tmp_path, Choices(dora_as_lora=1))
    verdict = verify.verify(live, few, asked, "gguf")
    assert verdict.gaps.largest <= 1e-3  # the file holds what was meant
    assert verdict.gaps.lost > rounding.MOST_SHARE  # which is too little
    assert not verdict.verified


def test_a_lora_of_full_rank_is_the_dora_and_a_lower_rank_loses_what_it_says(tiny_live):
    live = tiny_live(method="dora")
    found = list(factors(live.model))
    whole, said = as_lora(found, 24)
    assert said.startswith("0.0%")
    for one, other in zip(found, whole, strict=True):
        assert abs(delta(one) - delta(other)).max() < 1e-4
    _, said = as_lora(found[:1], 2)
    some = delta(found[0])
    lost = ((some - delta(as_lora(found[:1], 2)[0][0])) ** 2).sum() / (some**2).sum()
    assert said.startswith(f"{lost**0.5:.1%}")


def test_programs_say_what_they_take(tiny_live):
    lora, dora = tiny_live(), tiny_live(method="dora")
    wide = tiny_live(rank=600)

    def takes(live):
        return {s for s in stacks.STACKS if stacks.answer(s, live).accepted}

    everyone = set(stacks.STACKS)
    assert takes(lora) == everyone - {"lmstudio", "ollama"}
    assert takes(dora) == {"mlx-lm", "transformers"}
    assert takes(wide) == everyone - {"lmstudio", "ollama", "vllm"}
    asked = stacks.answer("vllm", tiny_live(rank=20))
    assert "--max-lora-rank 32" in asked.advice
