import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench_loss.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_loss", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_at_a_vocabulary_of_262144_the_fused_engine_stays_under_400_mb(bench):
    # Chunks of 64 rows: with twice as many rows the peak is already that of 2,048.
    found = bench.memory(rows=128, width=640, vocabulary=262_144)
    assert found["fused_bytes"] < 400e6


def test_the_short_form_prints_every_figure():
    ran = subprocess.run(
        [sys.executable, PROGRAM, "--short", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(ran.stdout)
    assert found["memory"]["fused_bytes"] < found["memory"]["dense_bytes"]
    assert found["time"]["fused_over_dense"] > 0
    assert found["time"]["dft_over_sft"] > 0
    assert found["exponentials"]["exp_over_mlx"] > 0
    assert found["exponentials"]["softmax_over_mlx"] > 0
