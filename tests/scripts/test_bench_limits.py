from dataclasses import replace
from pathlib import Path

import pytest

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.models.split import SplitModel

SCRIPTS = Path(__file__).parents[2] / "scripts"
ROWS = [Example((1,) * 20, ((15, 20),), ""), Example((1,) * 30, ((28, 30),), "")]


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_limits

    return bench_limits


@pytest.fixture
def work(limits):
    return replace(limits.SCENARIOS["a"].as_short(), epochs=3, layers=2)


def test_every_product_is_counted_as_often_as_it_cannot_be_avoided(limits, work):
    config = testing.tiny_config()
    model = testing.tiny_model()
    model.freeze()
    model.layers[1].self_attn.q_proj.unfreeze()  # as many numbers as an adapter might
    split = SplitModel(model)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shared = width * config["num_key_value_heads"] // config["num_attention_heads"]
    inward, outward, mlp = width * (width + 2 * shared), width**2, 3 * width * inner
    head = width * config["vocab_size"]
    assert config["num_hidden_layers"] == 3
    ours = peer = 2 * 50 * (inward + outward + mlp)  # a frozen block
    peer *= 3
    attention = 2 * width * (20**2 + 30**2)
    ours += attention  # below
    for _ in range(3):
        ours += 3 * attention + 4 * width**2 * 50
        ours += 2 * 50 * (inward + 2 * (outward + mlp))  # above it: no slope goes lower
        ours += 4 * (50 * inward + 7 * (outward + mlp))  # the last one
        ours += 4 * 7 * head
        peer += 2 * 4 * 50 * (inward + outward + mlp) + 4 * 50 * head
    gates = 50 * inner * (1 + 3)  # of the last block none
    assert limits.count(split, ROWS, work) == limits.Counted(ours, peer, gates)


def test_four_objectives_train_four_times_and_share_the_frozen_blocks(limits, work):
    model = testing.tiny_model()
    model.freeze()
    split = SplitModel(model)
    one = limits.count(split, ROWS, work)
    four = limits.count(split, ROWS, replace(work, arms=("sft",) * 4))
    assert four.peer == 4 * one.peer
    assert 3 * one.ours < four.ours < 4 * one.ours


@pytest.mark.parametrize(
    ("seconds", "words"), [(59, ": out of reach"), (61, ": not shown out of reach")]
)
def test_a_target_below_what_the_products_take_is_out_of_reach(
    limits, work, seconds, words
):
    run = dict.fromkeys(("tokens", "supervised", "positions", "head_rows"), 1)
    run |= {"seconds": seconds, "process_seconds": 1, "resident_bytes": 1}
    pairs = [{"peer": run | {"peak_bytes": 100}}]
    speed, memory = limits.held_against(work, pairs, "mlx-lm", 10.0, 30)
    assert work.speed == 6
    assert "loading" not in speed
    assert speed.endswith(words)
    assert memory.endswith("0.30 of its peak, aimed at 0.4: in reach")


def test_of_whole_processes_what_is_no_update_counts_too(limits, work):
    run = dict.fromkeys(("tokens", "supervised", "positions", "head_rows"), 1)
    run |= {"seconds": 1, "process_seconds": 66, "resident_bytes": 1, "peak_bytes": 1}
    ours = {"seconds": 20.0, "process_seconds": 22.0}
    whole = replace(work, arms=("sft", "dft"))
    (speed, _) = limits.held_against(whole, [{"ours": ours, "peer": run}], "", 10.0, 1)
    assert "10.0 s and loading as it is 2.0 s, at most 5.5 times: out of" in speed
