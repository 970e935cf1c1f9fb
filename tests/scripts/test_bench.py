import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_rsft import testing

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_report

    return bench_report


@pytest.fixture
def work(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_work

    return bench_work


def run(seconds, peak_bytes=100, nll=1.0):
    return {
        **dict.fromkeys(("tokens", "supervised", "positions", "head_rows"), 100),
        "seconds": seconds,
        "process_seconds": seconds + 10,
        "peak_bytes": peak_bytes,
        "resident_bytes": peak_bytes,
        "blas": "openblas",
        "checkpoint": False,
        "nll": {"sft": 1.0},
        "told_nll": {"sft": nll},
    }


def found(*pairs):
    made = [{"ours": ours, "peer": peer} for ours, peer in pairs]
    return {"pairs": {"mlx-lm": made}, "base_nll": 5.0}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One pair with mlx-lm on a tiny model, and the table it printed."""
    file = tmp_path_factory.mktemp("bench") / "found.json"
    command = [sys.executable, SCRIPTS / "bench.py", "--short", "--pairs", "1"]
    command += ["--scenario", "a,d", "--peers", "mlx-lm", "--json", file]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return json.loads(file.read_text())["scenarios"], ran.stdout


def test_both_sides_train_on_the_same_tokens(measured):
    scenario = measured[0]["a"]
    (pair,) = scenario["pairs"]["mlx-lm"]
    for figure in ("tokens", "supervised", "blas", "checkpoint"):
        assert pair["ours"][figure] == pair["peer"][figure] is not None
    assert pair["ours"]["tokens"] > pair["ours"]["supervised"] > 0


def test_no_token_of_padding_is_learned_where_all_rows_are_as_long(measured):
    scenario = measured[0]["a"]
    (pair,) = scenario["pairs"]["mlx-lm"]
    rows = scenario["work"]["rows"] * scenario["work"]["epochs"]
    assert pair["peer"]["positions"] == pair["peer"]["tokens"] - rows


def test_both_adapters_are_scored_and_have_learned_as_much(measured):
    scenario, table = measured[0]["a"], measured[1]
    (pair,) = scenario["pairs"]["mlx-lm"]
    for side in ("ours", "peer"):
        assert 0 < pair[side]["nll"]["sft"] < 0.99 * scenario["base_nll"]
    assert "apart: equal work" in table


@pytest.mark.parametrize("name", ["a", "d"])
def test_on_the_batches_of_the_peer_ours_learns_what_the_peer_learns(measured, name):
    """The same but for rounding; with padding learned, and in the peer's order."""
    (pair,) = measured[0][name]["pairs"]["mlx-lm"]
    told, peer = (pair["peer"][kind]["sft"] for kind in ("told_nll", "nll"))
    assert told == pytest.approx(peer, rel=1e-4)


def test_only_the_peer_computes_logits_of_prompts_and_padding(measured):
    (pair,) = measured[0]["a"]["pairs"]["mlx-lm"]
    assert pair["ours"]["head_rows"] == pair["ours"]["supervised"]
    assert pair["peer"]["head_rows"] == pair["peer"]["positions"]


def test_every_figure_of_time_and_memory_is_there(measured):
    (pair,) = measured[0]["a"]["pairs"]["mlx-lm"]
    for side in ("ours", "peer"):
        cost = pair[side]
        assert 0 < cost["seconds"] < cost["process_seconds"]
        assert 0 < cost["peak_bytes"] < cost["resident_bytes"]
        assert cost["positions"] > cost["supervised"]


def test_the_short_form_judges_no_target(measured):
    assert "no target is judged" in measured[1]
    assert "reached" not in measured[1]


def test_a_ratio_is_the_median_of_pairs_and_no_ratio_of_medians(report):
    pairs = [(1, 2), (10, 40), (100, 100)]
    runs = [{"ours": run(ours), "peer": run(peer)} for ours, peer in pairs]
    assert report.ratios(runs, "tokens/s", whole=False) == pytest.approx([2, 4, 1])


@pytest.mark.parametrize(("seconds", "verdict"), [(10, "reached"), (16, "missed")])
def test_a_target_is_called_reached_only_where_it_is(report, work, seconds, verdict):
    scenario = replace(work.SCENARIOS["a"], speed=6.0, memory=0.4)
    pair = (run(seconds, peak_bytes=90), run(65))
    table = report.table("a", scenario, found(pair), judged=True)
    assert f"target at least 6: {verdict}" in table
    assert "memory 0.90, target at most 0.4: missed" in table


def test_a_scenario_of_several_objectives_counts_whole_processes(report, work):
    table = report.table("f", work.SCENARIOS["f"], found((run(1), run(100))), judged=1)
    assert "speed 10.00" in table


@pytest.mark.parametrize(("nll", "words"), [(1.01, ": equal"), (1.03, ": NOT equal")])
def test_results_too_far_apart_are_no_equal_work(report, work, nll, words):
    pairs = found((run(1), run(1, nll=1.0)), (run(1), run(1, nll=nll)))
    assert words in report.table("a", work.SCENARIOS["a"], pairs, judged=True)


def test_what_only_one_side_had_is_told(report, work):
    other = run(1) | {"blas": "reference"}
    table = report.table("a", work.SCENARIOS["a"], found((run(1), other)), judged=True)
    assert "NOT alike: blas was openblas in ours, reference there" in table


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e", "f"])
def test_rows_are_the_same_again_and_fill_whole_batches(work, tmp_path, name):
    scenario = work.SCENARIOS[name]
    tokenizer = testing.byte_tokenizer()
    for folder in ("one", "two"):
        work.write_rows(scenario, tokenizer, tmp_path / folder)
    for split in ("train.jsonl", "test.jsonl"):
        one, two = (tmp_path / folder / split for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    lines = (tmp_path / "one" / "train.jsonl").read_text().splitlines()
    assert len(lines) == scenario.rows == len(set(lines))
    assert scenario.rows % scenario.batch_size == 0
    sizes = [[len(text) for text in json.loads(line).values()] for line in lines]
    assert max(map(sum, sizes)) < 2048
    # The peers learn a token of padding behind every row that is not the longest.
    assert (len({tuple(size) for size in sizes}) == 1) == (scenario.sigma == 0)
