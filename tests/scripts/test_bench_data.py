import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench_data.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_data", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("median", [60, 300])
def test_less_than_a_tenth_of_what_is_computed_is_padding(bench, median):
    found = bench.padding(median)
    assert 0 < found["ours"] < 0.1
    assert found["ours"] < found["mlx_lm"] / 4


def test_the_short_form_prints_every_figure(tmp_path, monkeypatch):
    ran = subprocess.run(
        [sys.executable, PROGRAM, "--short", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = json.loads(ran.stdout)
    assert len(found["streams"]) == 4
    for case in found["streams"]:
        assert case["rows_per_s"] > 0
        # The long form shows the law: 200,000 rows stay under 1 GB too.
        assert case["peak_megabytes"] < 1000
