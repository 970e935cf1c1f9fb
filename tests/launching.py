"""Launches commands as ranks, each in a process forked from one with all libraries loaded.

Reads one launch a line from stdin, and answers each with a line of JSON; see ``launch``.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import children
from faults_bench import LOADED

from mlx_rsft.cli.main import main as command_line

LIMIT_SECONDS = 60


def launch(works, log, environment, send=None):
    """Run works as so many ranks; what each ended with, and what it said.

    A work is the words of a command, or the path of a script. To ``send`` is
    ``[rank, signal, file, lines]``: as soon as the file has so many lines.
    """
    os.environ.update(environment)
    started = children.ranks([lambda work=work: _do(work) for work in works], log)
    for name in environment:
        del os.environ[name]
    if send:
        rank, number, file, lines = send
        _wait_for(Path(file), lines)
        os.kill(started[rank], number)
    codes = {}
    for rank, child in enumerate(started):
        stopped = send and send[:2] == [rank, signal.SIGSTOP]
        codes[rank] = None if stopped else children.ended_within(child, LIMIT_SECONDS)
    for rank, code in codes.items():
        if code is None:
            os.kill(started[rank], signal.SIGKILL)
            children.ended(started[rank])
    said = [children.log_of(log, rank).read_text() for rank in codes]
    return [*zip(codes.values(), said, strict=True)]


def _do(work):
    if isinstance(work, str):
        runpy.run_path(work, run_name="__main__")
    else:
        command_line(work)


def _wait_for(file, lines):
    until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < until:
        if file.exists() and file.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)


if __name__ == "__main__":
    for module in LOADED:
        importlib.import_module(module)
    for line in sys.stdin:
        given = json.loads(line)
        answer = launch(**{**given, "log": Path(given["log"])})
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
