import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench_plan.py"


def test_estimates_of_the_demo_model_are_within_15_percent_of_real_steps(demo_gguf):
    del demo_gguf  # fetched before the clock runs
    ran = subprocess.run(
        [sys.executable, PROGRAM, "--short", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    found = json.loads(ran.stdout)
    assert len(found["cases"]) == 3
    for case in found["cases"]:
        assert abs(case["error"]) < 0.15, case
        assert case["before_bytes"] < 0.05 * case["measured"]  # no weights were loaded
    assert found["worst"] < 0.15
