"""A short form of the campaign of kills, full disks and damages."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "faults.py"


def test_killed_starved_and_damaged_runs_end_as_they_should():
    short = ("--steps", "12", "--kills", "3", "--damages", "6", "--every", "25")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *short],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["killed"]["kills"] == 3
    assert found["killed"]["false_alarms"] == 0
    assert found["disk_full"]["tried"] >= 3
