import importlib.util
import json
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench_trust.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_trust", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def figures(bench, monkeypatch, capsys):
    """What a part prints."""

    def run(*arguments):
        given = ["bench_trust.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", given)
        bench.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_altered_bytes_are_found_and_named(figures):
    found = figures("alterations", "--count", 30)
    assert found["found"] == found["named"] == found["alterations"] == 30
    assert found["sound_at_the_end"]


def test_what_noting_rows_costs_is_told(figures):
    found = figures("notes", "--count", 5)
    assert found["sums_by_row_ms"] > 0
    assert 0 < found["bytes_per_step"] < 1000


def test_the_wrong_labels_of_the_campaign_are_all_wrong(bench, tmp_path):
    right = (bench._colours(tmp_path / "right") / "train.jsonl").read_text()
    wrong = (bench._colours(tmp_path / "wrong", shift=1) / "train.jsonl").read_text()
    pairs = zip(right.splitlines(), wrong.splitlines(), strict=True)
    for one, other in pairs:
        one, other = json.loads(one), json.loads(other)
        assert one["prompt"] == other["prompt"]
        assert one["completion"] != other["completion"]
