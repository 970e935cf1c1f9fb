"""Kills, starves and damages runs, and says whether each one ended as it should.

    scripts/faults --every 11                         # 60 kills, 120 damages: minutes
    scripts/faults --steps 8 --kills 2 --damages 6    # every write of a short run fails
    scripts/faults --ranks 2 --damages 0 --every 0 --kills 60   # a run of two processes
    scripts/faults --steps 12 --kills 3 --damages 6 --every 25  # as the tests do

A tiny model is trained, by the real command line in processes of their own. They are
forked from one that has the libraries loaded already, which saves seconds each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import children
from faults_bench import Bench, outcome

from mlx_rsft import files, ledger, records
from mlx_rsft.cli.main import main as command_line
from mlx_rsft.models import tensor_file
from mlx_rsft.workflows import audit

CUTS_OF_ONE_RUN = 6
BY_THEMSELVES_SECONDS, WHEN_ASKED_SECONDS = 5.0, 30.0
"""Within so long the other ranks end where one was killed.

Before ranks are connected only what launched them can tell that one is gone.
"""
WRITERS = (
    (files, "write_text"),
    (files, "sync"),
    (records, "append"),
    (tensor_file, "write"),
)
"""All that a run writes with."""
TARGETS = (
    "manifest.json",
    "config.toml",
    "checkpoints/{newest}/checkpoint.json",
    "checkpoints/{newest}/state.safetensors",
    "adapter/adapter_config.json",
    "adapter/adapters.safetensors",
)


def unsound(run: Path) -> bool:
    """Whether a run is said to be altered, once its log has begun."""
    return bool(ledger.read(run).events and audit.verify(run).findings)


def kills(bench: Bench, count: int, chance: random.Random) -> dict[str, Any]:
    """Kill runs at random moments: from their first instant on, and amid their steps."""
    phases: dict[str, int] = {}
    wrong = done = runs = alarms = hung = 0
    while done < count:
        run = bench.folder / f"killed{runs}"
        runs += 1
        for _ in range(min(CUTS_OF_ONE_RUN, count - done)):
            begun = _num_steps(run)
            started = bench.begin(run)
            _wait(bench, run, begun if done % 2 else None, chance)
            was_killed, left = _killed(started, chance)
            hung += left
            if not was_killed:
                break  # it was done
            done += 1
            phase = _phase(run)
            phases[phase] = phases.get(phase, 0) + 1
            alarms += unsound(run)
        if _is_done(run):
            wrong += outcome(run) != bench.wanted
        else:
            wrong += not bench.ends_well(run)
        alarms += unsound(run)
    told = {"kills": done, "runs": runs, "phases": phases, "wrong": wrong}
    return {**told, "false_alarms": alarms, "hung": hung}


def _num_steps(run: Path) -> int:
    steps = run / "steps.jsonl"
    return steps.read_bytes().count(b"\n") if steps.exists() else 0


def _wait(bench: Bench, run: Path, begun: int | None, chance: random.Random) -> None:
    """Wait for a random moment, or for one after a step beyond those ``begun`` with."""
    if begun is None:
        time.sleep(chance.uniform(0, bench.seconds))
        return
    until = time.monotonic() + 2 * bench.seconds
    while _num_steps(run) <= begun and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, bench.seconds / 8))


def _killed(started: Sequence[int], chance: random.Random) -> tuple[bool, int]:
    """Kill one of a run's processes: whether it was there, and how many others stayed."""
    victim = started[chance.randrange(len(started))]
    os.kill(victim, signal.SIGKILL)
    was_killed = children.ended(victim) == -signal.SIGKILL
    left = 0
    for other in [child for child in started if child != victim]:
        if children.ended_within(other, BY_THEMSELVES_SECONDS) is not None:
            continue
        os.kill(other, signal.SIGTERM)
        if children.ended_within(other, WHEN_ASKED_SECONDS) is None:
            os.kill(other, signal.SIGKILL)
            children.ended(other)
            left += 1
    return was_killed, left


def _is_done(run: Path) -> bool:
    card = run / "manifest.json"
    return card.exists() and bool(json.loads(card.read_text())["finished"])


def _phase(run: Path) -> str:
    checkpoints = run / "checkpoints"
    if not (run / "manifest.json").exists():
        return "before it began"
    if not any(checkpoints.glob("step-*")):
        return "before the first checkpoint"
    if any(checkpoints.glob(".step-*")):
        return "within a checkpoint's saving"
    return "after the last step" if (run / "adapter").exists() else "between"


def full_disks(bench: Bench, every: int) -> dict[str, Any]:
    """Let a write fail, as on a full disk: each of a run's, or every so many."""
    unnamed = wrong = tried = number = 0
    while True:
        run = bench.folder / f"full{number}"
        code = bench.go(run, before=lambda number=number: _let_fail(number))
        if code == 0:
            return {
                "writes": number,
                "tried": tried,
                "unnamed": unnamed,
                "wrong": wrong,
            }
        tried += 1
        unnamed += code != 2
        wrong += not bench.ends_well(run)
        number += every


def _let_fail(number: int) -> None:
    left = number

    def failing(writer: Callable[..., None]) -> Callable[..., None]:
        def write(path: Path, *more: Any, **named: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device", str(path))
            writer(path, *more, **named)

        return write

    for module, name in WRITERS:
        setattr(module, name, failing(getattr(module, name)))


def damages(bench: Bench, count: int, chance: random.Random) -> dict[str, Any]:
    """Flip a bit, cut a file short, or put that of another run in its place."""
    cut, foreign = bench.folder / "damaged", bench.folder / "foreign"
    assert bench.go(foreign, "--seed", "1") == 0
    assert bench.go(cut, before=lambda: _let_fail(bench.steps * 3)) == 2
    shutil.copytree(bench.folder / "whole" / "adapter", cut / "adapter")
    taken: dict[str, int] = {}
    for number in range(count):
        target = TARGETS[number % len(TARGETS)]
        newest = max(path.name for path in (cut / "checkpoints").glob("step-*"))
        other = _newest_of(foreign, target)
        file = cut / target.format(newest=newest)
        whole = file.read_bytes()
        file.write_bytes(_damaged(whole, other.read_bytes(), number, chance))
        if not _is_refused(bench, cut, target):
            taken[target] = taken.get(target, 0) + 1
        file.write_bytes(whole)
    wrong = int(not bench.ends_well(cut))
    return {"damages": count, "not_refused": taken, "wrong": wrong}


def _newest_of(run: Path, target: str) -> Path:
    newest = max(path.name for path in (run / "checkpoints").glob("step-*"))
    return run / target.format(newest=newest)


def _damaged(whole: bytes, other: bytes, number: int, chance: random.Random) -> bytes:
    how = number // len(TARGETS) % 3
    if how == 0:
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole) - 1)] ^= 1 << chance.randrange(7)
        return bytes(flipped)
    return whole[: chance.randrange(len(whole) - 1)] if how == 1 else other


def _is_refused(bench: Bench, run: Path, target: str) -> bool:
    """Whether the command ends with a message of ours, not with a traceback or well."""
    rows = str(bench.data / "valid.jsonl")
    words = ["eval", "--model", str(bench.model), "--data", rows, "--metrics", "nll"]
    words += ["--adapter", str(run / "adapter")]
    if not target.startswith("adapter"):
        return bench.go(run, "--dry-run") == 2
    return children.run(lambda: command_line(words), bench.log) == 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for, print what they gave; 3 if something ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--damages", type=int, default=120)
    parser.add_argument(
        "--every", type=int, default=1, help="of so many writes, one fails; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1, help="processes of each run")
    given = parser.parse_args(arguments)
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.steps, given.ranks)
        found = {"killed": kills(bench, given.kills, chance)}
        if given.every:
            found["disk_full"] = full_disks(bench, given.every)
        if given.damages:
            found["damaged"] = damages(bench, given.damages, chance)
    print(json.dumps(found, indent=2))
    bad = ("wrong", "false_alarms", "hung", "unnamed", "not_refused")
    return 3 if any(part.get(name) for part in found.values() for name in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
