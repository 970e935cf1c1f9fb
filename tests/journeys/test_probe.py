"""What the demo model says of the demo data, with wrong labels planted in them."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_suspects.py"
SIZE = ("--rows", "120", "--seeds", "1")


def test_most_rows_that_look_mislabelled_are(demo_gguf):
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--model", demo_gguf, "--json", *SIZE],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (figures,) = json.loads(ran.stdout)["seeds"]
    assert figures["wrong"] == 36
    # By chance 0.3; 320 rows give 0.91 to 0.95, fewer rows fewer neighbours that fit.
    assert figures["precision_at_n"] > 0.6
    assert figures["recall"] > 0.6
