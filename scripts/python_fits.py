"""Says whether the Python that runs this file can carry mlx-rsft, or what it lacks.

Prints ``VERSION PATH`` and exits 0, or the problem and exits 1. Written so that an
old Python can read it far enough to be told that it is old.
"""

import platform
import subprocess
import sys
from importlib.util import find_spec

OLDEST = (3, 11)
VERSION = ".".join(map(str, sys.version_info[:2]))


def problem() -> str:
    """What keeps mlx-rsft from running on this Python; empty if nothing does."""
    if sys.version_info[:2] < OLDEST:
        return "is Python " + VERSION + " (" + sys.executable + "), older than 3.11"
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return "is built for Intel; mlx needs an arm64 Python " + on_this_mac()
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        package = "python" + VERSION + "-venv"
        return "lacks its venv module; Debian, Ubuntu: sudo apt-get install " + package
    return ""


def on_this_mac() -> str:
    """Tells an Intel Python under Rosetta from an Intel Mac."""
    asked = ["sysctl", "-n", "hw.optional.arm64"]
    if subprocess.run(asked, capture_output=True, check=False).stdout.strip() == b"1":
        return "(this one runs under Rosetta)"
    return "and an Apple silicon Mac"


if __name__ == "__main__":
    lacking = problem()
    if lacking:
        print(lacking)
        sys.exit(1)
    # Of an active environment its parent, which outlives the environment.
    print(VERSION + " " + getattr(sys, "_base_executable", sys.executable))
