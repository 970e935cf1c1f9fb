import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_rsft import testing

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, SCRIPTS / "roofline.py", "--short", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def roofline(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import roofline

    return roofline


def test_every_weight_is_multiplied_once_per_token_and_its_gradient_as_often(found):
    config = testing.tiny_config(hidden_size=48, intermediate_size=96)
    width, inner, heads = 48, 96, config["num_attention_heads"]
    shared = width * config["num_key_value_heads"] // heads
    block = 2 * width * (width + shared) + 3 * width * inner
    blocks = 2 * block * config["num_hidden_layers"] * found["tokens"]
    assert found["operations"]["blocks forward"] == blocks
    assert found["operations"]["blocks backward"] == blocks
    head = 4 * width * config["vocab_size"] * found["supervised"]
    assert found["operations"]["head"] == head


def test_the_head_is_charged_for_learned_positions_only(found):
    assert found["supervised"] == found["tokens"] - found["rows"]


def test_the_share_is_that_of_the_limit(found):
    assert found["share"] == pytest.approx(found["limit_s"] / found["step_s"])
    slowest = min(found["matmul_gflops"].values()) * 1e9
    fastest = max(found["matmul_gflops"].values()) * 1e9
    work = sum(found["operations"].values())
    assert work / fastest <= found["limit_s"] <= work / slowest


def test_every_part_of_the_step_has_its_time(found, roofline):
    parts = found["parts_s"]
    assert list(parts) == [
        "data",
        "blocks forward",
        "blocks backward",
        "head and loss",
        "optimizer and clip",
    ]
    text = roofline.as_text(found)
    for name in parts:
        assert name in text
    assert "what is left" in text
