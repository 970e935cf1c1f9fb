import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import machine, testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import load
from mlx_rsft.settings import ModelSettings

TOKENS = mx.arange(12)[None]


def _load(folder, **settings):
    return load.load(ModelSettings(source=str(folder), **settings))


def _edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def folder(tmp_path):
    return testing.write_tiny_model(tmp_path / "model")


def test_a_folder_loads_frozen_and_knows_what_it_is(folder):
    loaded = _load(folder)
    assert mx.array_equal(loaded.model(TOKENS), testing.tiny_model()(TOKENS)).item()
    assert not tree_flatten(loaded.model.trainable_parameters())
    record = loaded.as_record()
    assert set(record["sha256"]) == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }
    assert loaded.notes == ()


def test_auto_computes_in_float32_on_the_cpu_backend_even_from_quantised_weights(
    tmp_path,
):
    if machine.backend() != "cpu":
        pytest.skip("auto keeps the stored type on this backend")
    folder = testing.write_tiny_model(
        tmp_path / "model", hidden_size=64, num_attention_heads=4, intermediate_size=64
    )
    whole = _load(folder).model
    unrounded = whole(TOKENS)
    mx.eval(unrounded)
    _quantise(folder, whole)
    loaded = _load(folder)
    kinds = {p.dtype for _, p in tree_flatten(loaded.model.parameters())}
    assert kinds == {mx.float32}
    assert loaded.precision == "float32"
    stored = _load(folder, precision="stored")
    assert any(n.endswith("scales") for n, _ in tree_flatten(stored.model.parameters()))
    assert mx.allclose(loaded.model(TOKENS), stored.model(TOKENS), atol=1e-4).item()
    assert not mx.allclose(loaded.model(TOKENS), unrounded, atol=1e-2).item()


def _quantise(folder, model):
    import mlx.nn as nn

    nn.quantize(model, group_size=32, bits=4)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    _edit(folder, quantization={"group_size": 32, "bits": 4})


def test_a_rope_base_where_only_newer_libraries_look_is_corrected_and_said(tmp_path):
    folder = testing.write_tiny_model(tmp_path / "model", rope_theta=123.0)
    config = json.loads((folder / "config.json").read_text())
    wanted = _load(folder).model(TOKENS)
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_theta": 123.0, "rope_type": "default"}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = _load(folder)
    assert mx.array_equal(loaded.model(TOKENS), wanted).item()
    assert "123" in loaded.notes[0]


def test_a_sliding_window_that_mlx_lm_leaves_out_is_said_and_bounds_the_context(
    folder, tmp_path
):
    from mlx_lm.models import gemma2

    config = testing.tiny_config(
        model_type="gemma2",
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )
    model = gemma2.Model(gemma2.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    long = {"sliding_window": 4096, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps({**config, **long}))
    assert any("more than 4096 tokens" in note for note in _load(folder).notes)
    assert load.context_length(folder) == 4096
    _edit(folder, max_position_embeddings=4096)
    assert _load(folder).notes == ()
    _edit(folder, model_type="gemma3_text", max_position_embeddings=8192)
    assert load.context_length(folder) == 8192


def test_code_that_comes_with_a_model_is_not_run_unless_asked(folder, tmp_path):
    witness = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"import pathlib; pathlib.Path({str(witness)!r}).touch()\nfrom mlx_lm.models.llama import *\n"
    )
    _edit(folder, model_file="own.py")
    with pytest.raises(ModelError, match=r"own\.py[\s\S]*--trust-remote-code"):
        _load(folder)
    assert not witness.exists()
    _load(folder, trust_remote_code=True)
    assert witness.exists()


def test_a_folder_without_a_tokenizer_is_refused_before_its_weights_are_read(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        _load(folder)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json"),
        (lambda f: _edit(f, model_type="nonesuch"), "nonesuch"),
        (lambda f: (f / "model.safetensors").unlink(), "weights"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"xx"),
            "no whole safetensors",
        ),
        (lambda f: _edit(f, hidden_size=48), "weights"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, break_it, said):
    break_it(folder)
    with pytest.raises(ModelError, match=said) as caught:
        _load(folder)
    assert caught.value.where.startswith(str(folder))


def test_what_is_no_model_is_said():
    with pytest.raises(ModelError, match="no folder") as caught:
        _load("nonesuch")
    assert caught.value.hint.endswith("built in are demo and demo-gemma.")
    with pytest.raises(ModelError, match="no such file"):
        _load("gone.gguf")


def test_offline_the_cache_folder_and_the_switch_are_named(tmp_path):
    # The switch is read when huggingface_hub is imported, hence the fresh process.
    import os
    import subprocess
    import sys

    ran = subprocess.run(
        f"{sys.executable} -m mlx_rsft generate --model no/such-model --prompt x".split(),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 2
    assert str(tmp_path) in ran.stderr
    assert "HF_HUB_OFFLINE" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_model_is_hashed_once_until_a_file_is_another(tmp_path, monkeypatch):
    folder = testing.write_tiny_model(tmp_path / "model")
    read = []
    hashed = load.files.sha256
    monkeypatch.setattr(
        load.files, "sha256", lambda path: read.append(path.name) or hashed(path)
    )
    before = load.identity(folder)
    assert load.identity(folder) == before
    assert sorted(read) == sorted(before)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert load.identity(folder) != before
    assert read[len(before) :] == ["model.safetensors"]
