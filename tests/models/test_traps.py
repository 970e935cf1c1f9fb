import json
import shutil

import pytest

from mlx_rsft import testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import traps


def _edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _lfs(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "model.safetensors").write_text(text)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _index(folder):
    listed = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def _no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


TRAPS = {
    "weights that git left out": (_lfs, "weights", "problem", "git lfs pull"),
    "weights cut short": (_cut, "weights", "problem", "not whole"),
    "a part missing": (_index, "weights", "problem", "safetensors is missing"),
    "no tokenizer": (_no_tokenizer, "tokenizer", "problem", "none"),
    "an unknown type": (
        lambda f: _edit(f, model_type="nonesuch"),
        "architecture",
        "problem",
        "'nonesuch'",
    ),
    "code": (lambda f: _edit(f, model_file="own.py"), "code", "problem", "trust"),
    "rounding mlx-lm does not read": (
        lambda f: _edit(f, quantization_config={"quant_method": "bitsandbytes"}),
        "quantisation",
        "problem",
        "bitsandbytes",
    ),
    "rounding it reads": (
        lambda f: _edit(f, quantization_config={"quant_method": "awq"}),
        "quantisation",
        "note",
        "rounded already",
    ),
    "a window left out": (
        lambda f: _edit(
            f, model_type="gemma2", sliding_window=16, max_position_embeddings=64
        ),
        "window",
        "note",
        "more than 16 tokens",
    ),
    "a tied head": (lambda f: None, "head", "note", "one matrix"),
}


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_is_seen_and_no_other(folder, name):
    spring, topic, level, told = TRAPS[name]
    before = {f.topic: f.level for f in traps.look(folder)}
    assert before == {
        **dict.fromkeys(("architecture", "weights", "RoPE", "quantisation"), "fine"),
        "head": "note",
    }
    spring(folder)
    found = {f.topic: f for f in traps.look(folder)}
    assert found[topic].level == level
    assert told in found[topic].message + found[topic].remedy
    assert found[topic].remedy
    others = {t: f.level for t, f in found.items() if t not in (topic, "head")}
    assert others == {t: before[t] for t in others}


def test_a_head_of_its_own_is_no_trap(tmp_path):
    folder = testing.write_tiny_model(tmp_path / "m", tie_word_embeddings=False)
    assert "head" not in {f.topic for f in traps.look(folder)}


def test_a_folder_without_a_configuration_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        traps.look(tmp_path)
