"""A short form of the campaign of kills, full disks and damages."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "faults.py"


def _found(*words):
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def test_killed_starved_and_damaged_runs_end_as_they_should():
    short = ("--steps", "12", "--kills", "3", "--damages", "6", "--every", "25")
    found = _found(*short)
    assert found["killed"]["kills"] == 3
    assert found["killed"]["false_alarms"] == 0
    assert found["disk_full"]["tried"] >= 3


def test_a_killed_rank_never_costs_a_run_its_bytes():
    short = ("--ranks", "2", "--steps", "16", "--kills", "2", "--damages", "0")
    found = _found(*short, "--every", "0")
    assert found["killed"]["kills"] == 2
    assert found["killed"]["hung"] == 0
