"""Kills, starves and damages runs, and says whether each one ended as it should.

    scripts/faults --every 11                         # 60 kills, 120 damages: minutes
    scripts/faults --steps 8 --kills 2 --damages 6    # every write of a short run fails
    scripts/faults --steps 12 --kills 3 --damages 6 --every 25  # as the tests do

A tiny model is trained, by the real command line in processes of their own. They are
forked from one that has the libraries loaded already, which saves seconds each.
"""

from __future__ import annotations

import argparse
import importlib
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

from mlx_rsft import files, ledger, records, testing
from mlx_rsft.cli.main import main as command_line
from mlx_rsft.models import tensor_file
from mlx_rsft.workflows import audit

LOADED = (
    "mlx_lm.tuner.utils",
    "mlx_rsft.workflows.train",
    "mlx_rsft.workflows.evaluate",
)
"""What all children need, and takes seconds to import."""
EVERY = 1
CUTS_OF_ONE_RUN = 6
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


class Bench:
    """A tiny model, its rows, and the run that nothing happened to."""

    def __init__(self, folder: Path, steps: int) -> None:
        for name in LOADED:
            importlib.import_module(name)
        self.folder, self.steps = folder, steps
        os.environ["MLX_RSFT_CACHE"] = str(folder / "cache")
        self.model, self.data = folder / "model", folder / "data"
        made = _child(self._make, folder / "log")
        assert made == 0, (folder / "log").read_text()
        began = time.perf_counter()
        assert self.go(folder / "whole") == 0, (folder / "log").read_text()
        self.seconds = time.perf_counter() - began  # of which a part is starting
        assert self.go(folder / "foreign", "--seed", "1") == 0
        self.wanted = outcome(folder / "whole")

    def _make(self) -> None:
        testing.write_tiny_model(self.model)
        self.data.mkdir()
        for name, count in (("train", 20), ("valid", 4)):
            rows = [
                {"prompt": f"{name} {n}", "completion": f"{n}"} for n in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (self.data / f"{name}.jsonl").write_text(lines)

    def words(self, run: Path, *more: str) -> list[str]:
        """The command that begins a run, or goes on with it where it has begun."""
        if (run / "manifest.json").exists():
            return ["train", "--run-dir", str(run), "--resume", *more]
        where = ["--model", str(self.model), "--data", str(self.data)]
        manner = ["--objective", "sft", "--layers", "last:2", "--batch-size", "4"]
        length = ["--steps", str(self.steps), "--checkpoint-every", str(EVERY)]
        return ["train", *where, *manner, *length, "--run-dir", str(run), *more]

    def go(
        self, run: Path, *more: str, before: Callable[[], None] | None = None
    ) -> int:
        """Let a run go on to its end; the exit code."""

        def work() -> None:
            if before:
                before()
            command_line(self.words(run, *more))

        return _child(work, self.folder / "log")

    def ends_well(self, run: Path) -> bool:
        """Whether a run goes on to the bytes of the one that nothing happened to."""
        return self.go(run) == 0 and outcome(run) == self.wanted


def outcome(run: Path) -> tuple[bytes, list[dict[str, Any]], str, str]:
    """What a run leaves, but for times."""
    steps = list(records.read_lines(run / "steps.jsonl"))
    hour = records.OF_THE_HOUR
    kept = [{k: v for k, v in step.items() if k not in hour} for step in steps]
    adapter = (run / "adapter" / "adapters.safetensors").read_bytes()
    weights = (run / "weights.jsonl").read_text()
    return adapter, kept, (run / "evals.jsonl").read_text(), weights


def unsound(run: Path) -> bool:
    """Whether a run is said to be altered, once its log has begun."""
    return bool(ledger.read(run).events and audit.verify(run).findings)


def kills(bench: Bench, count: int, chance: random.Random) -> dict[str, Any]:
    """Kill runs at random moments, from their first instant to their last."""
    phases: dict[str, int] = {}
    wrong = done = runs = alarms = 0
    while done < count:
        run = bench.folder / f"killed{runs}"
        runs += 1
        for _ in range(min(CUTS_OF_ONE_RUN, count - done)):
            words = bench.words(run)
            child = _start(
                lambda words=words: command_line(words), bench.folder / "log"
            )
            time.sleep(chance.uniform(0, bench.seconds))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != signal.SIGKILL:
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
    return {**told, "false_alarms": alarms}


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
    cut = bench.folder / "damaged"
    assert bench.go(cut, before=lambda: _let_fail(bench.steps * 3)) == 2
    shutil.copytree(bench.folder / "whole" / "adapter", cut / "adapter")
    taken: dict[str, int] = {}
    for number in range(count):
        target = TARGETS[number % len(TARGETS)]
        newest = max(path.name for path in (cut / "checkpoints").glob("step-*"))
        other = _newest_of(bench.folder / "foreign", target)
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
    if target.startswith("adapter"):
        words += ["--adapter", str(run / "adapter")]
    else:
        words = [*bench.words(run), "--dry-run"]
    return _child(lambda: command_line(words), bench.folder / "log") == 2


def _start(work: Callable[[], None], log: Path) -> int:
    """Begin work in a process of its own; what it says goes into a file."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(code)


def _child(work: Callable[[], None], log: Path) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_start(work, log), 0)[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all three, print what they gave; 3 if something ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--damages", type=int, default=120)
    parser.add_argument(
        "--every", type=int, default=1, help="of so many writes, one fails"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.steps)
        found = {
            "killed": kills(bench, given.kills, chance),
            "disk_full": full_disks(bench, given.every),
            "damaged": damages(bench, given.damages, chance),
        }
    print(json.dumps(found, indent=2))
    bad = any(part["wrong"] for part in found.values())
    bad |= bool(found["killed"]["false_alarms"])
    bad |= bool(found["disk_full"]["unnamed"] or found["damaged"]["not_refused"])
    return 3 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
