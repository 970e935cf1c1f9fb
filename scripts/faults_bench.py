"""A tiny model, its rows, and the run that nothing happened to: what faults are tried on."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children

from mlx_rsft import records, testing
from mlx_rsft.cli.main import main as command_line

LOADED = (
    "mlx_lm.tuner.utils",
    "mlx_rsft.workflows.train",
    "mlx_rsft.workflows.evaluate",
)
"""What all children need, and takes seconds to import."""
EVERY = 1


class Bench:
    """A tiny model, its rows, and the run that nothing happened to.

    Args:
        folder: Where all of it goes.
        steps: Of each run.
        num_ranks: Processes that train each run.
    """

    def __init__(self, folder: Path, steps: int, num_ranks: int = 1) -> None:
        for name in LOADED:
            importlib.import_module(name)
        self.folder, self.steps, self.num_ranks = folder, steps, num_ranks
        self.log = folder / "log"
        os.environ["MLX_RSFT_CACHE"] = str(folder / "cache")
        self.model, self.data = folder / "model", folder / "data"
        made = children.run(self._make, self.log)
        assert made == 0, self.log.read_text()
        began = time.perf_counter()
        assert self.go(folder / "whole") == 0, self.log.read_text()
        self.seconds = time.perf_counter() - began  # of which a part is starting
        self.wanted = outcome(folder / "whole")

    def _make(self) -> None:
        testing.write_tiny_model(self.model)
        self.data.mkdir()
        for name, count in (("train", 21), ("valid", 4)):
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

    def begin(
        self, run: Path, *more: str, before: Callable[[], None] | None = None
    ) -> list[int]:
        """Begin a run, or go on with it: its processes, by rank."""
        words = self.words(run, *more)

        def lead() -> None:
            if before:
                before()
            command_line(words)

        def follow() -> None:
            command_line(words)

        return children.ranks([lead, *[follow] * (self.num_ranks - 1)], self.log)

    def go(
        self, run: Path, *more: str, before: Callable[[], None] | None = None
    ) -> int:
        """Let a run go on to its end; the exit code of its first process."""
        started = self.begin(run, *more, before=before)
        codes = [children.ended(child) for child in started]
        return codes[0]

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
