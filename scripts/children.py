"""Processes forked from one that has the libraries loaded, alone or as connected ranks."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Work = Callable[[], object]


def start(work: Work, log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Begin work in a process of its own; what it says goes into a file."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.environ.update(environment or {})
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(code)


def run(work: Work, log: Path) -> int:
    """Do work in a process of its own; its exit code."""
    return ended(start(work, log))


def ended(child: int) -> int:
    """The exit code of a child once it has ended, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended_within(child: int, seconds: float) -> int | None:
    """The same; None if it is still there after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def ranks(works: Sequence[Work], log: Path) -> list[int]:
    """Begin each work as one of so many ranks, in a ring over loopback; one is alone.

    Args:
        works: What each is to do.
        log: A file; those of the other ranks have their number behind its name.
    """
    if len(works) == 1:
        return [start(works[0], log)]
    hosts = log.with_name(f"{log.name}.hosts")
    hosts.write_text(json.dumps([[f"127.0.0.1:{p}"] for p in _free_ports(len(works))]))
    return [
        start(
            work,
            log_of(log, rank),
            {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)},
        )
        for rank, work in enumerate(works)
    ]


def log_of(log: Path, rank: int) -> Path:
    """Where a rank's words go."""
    return log.with_name(f"{log.name}{rank or ''}")


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
