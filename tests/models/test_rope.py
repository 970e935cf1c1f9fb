import json
import subprocess
import sys

import mlx.core as mx
import pytest

from mlx_rsft import testing
from mlx_rsft.models import load, rope, traps
from mlx_rsft.settings import ModelSettings

TOKENS = mx.arange(200)[None]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _logits(folder):
    loaded = load.load(ModelSettings(source=str(folder)))
    return loaded.model(TOKENS), loaded.notes


def _stock(folder):
    from mlx_lm.utils import load_model

    return load_model(folder)[0](TOKENS)


@pytest.fixture
def moved(tmp_path):
    """A model with everything at its old place, and the same as transformers 5 has it."""
    settings = {"rope_theta": 500.0, "rope_scaling": LLAMA3}
    more = {**settings, "max_position_embeddings": 512}
    old = testing.write_tiny_model(tmp_path / "old", **more)
    new = testing.write_tiny_model(tmp_path / "new", **more)
    config = json.loads((new / "config.json").read_text())
    for key in settings:
        del config[key]
    config["rope_parameters"] = {"rope_theta": 500.0, **LLAMA3}
    (new / "config.json").write_text(json.dumps(config))
    return old, new


def test_base_and_scaling_are_put_where_mlx_lm_reads_them_and_named(moved):
    old, new = moved
    (wanted, silent), (found, notes) = _logits(old), _logits(new)
    assert mx.array_equal(found, wanted).item()
    assert not silent
    assert "rope_theta 500.0, rope_scaling" in notes[0]
    # The day this fails mlx-lm reads them itself, and the correction may go.
    assert mx.abs(_stock(new) - wanted).max().item() > 1e-3


def test_the_remedy_that_doctor_shows_mends_the_file_for_everyone(moved):
    old, new = moved
    (found,) = (f for f in traps.look(new) if f.topic == "RoPE")
    assert found.level == "note"
    command = found.remedy.removeprefix("For other programs: ")
    command = command.replace("python3", sys.executable, 1)
    subprocess.run(["sh", "-c", command], check=True)
    assert mx.array_equal(_stock(new), _stock(old)).item()
    (found,) = (f for f in traps.look(new) if f.topic == "RoPE")
    assert found.level == "fine"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"rope_theta": 5.0}, {}),
        ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}, {}),
        ({"rope_parameters": {"rope_theta": 7.0}}, {"rope_theta": 7.0}),
        (
            {"rope_theta": None, "rope_parameters": {"rope_theta": 7.0}},
            {"rope_theta": 7.0},
        ),
        (
            {"rope_parameters": {"rope_theta": 7.0, "partial_rotary_factor": 0.5}},
            {"rope_theta": 7.0, "partial_rotary_factor": 0.5},
        ),
        (
            {"rope_theta": 7.0, "rope_parameters": {"rope_theta": 7.0, **LLAMA3}},
            {"rope_scaling": LLAMA3},
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}, {}),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {
                    "full_attention": {
                        "rope_theta": 7.0,
                        "rope_type": "linear",
                        "factor": 8.0,
                    },
                    "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"},
                },
            },
            {
                "rope_local_base_freq": 3.0,
                "rope_theta": 7.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        (
            {"text_config": {"a": 1, "rope_parameters": {"rope_theta": 7.0}}},
            {
                "text_config": {
                    "a": 1,
                    "rope_parameters": {"rope_theta": 7.0},
                    "rope_theta": 7.0,
                }
            },
        ),
    ],
)
def test_only_what_is_missing_is_added(config, wanted):
    assert rope.corrections(config) == wanted
    if wanted:
        assert (
            "rope_theta 7.0" in rope.spelled(wanted, config) or "rope_theta" in config
        )


def test_models_that_read_the_new_places_are_left_to_it():
    given = {"rope_parameters": {"rope_theta": 7.0, **LLAMA3}}
    assert not rope.corrections({"model_type": "qwen3", **given})
    assert set(rope.corrections({"model_type": "qwen2", **given})) == {
        "rope_theta",
        "rope_scaling",
    }
    assert rope.module("nonesuch") is None
