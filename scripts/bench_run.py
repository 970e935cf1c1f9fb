"""One run of one trainer in a process of its own: reads a job, writes what it cost.

    python scripts/bench_run.py job.json result.json

It runs in our environment or in the peer's, with the same BLAS.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_cost
import bench_peers
from bench_cost import Cost, Job

from mlx_rsft import machine  # before mlx.core: a fast BLAS under it, for each side

# isort: split
import mlx.core as mx

LEFT_OUT = ("load", "render", "validate")
"""Tasks of ours that are no part of an update; the peers' clock leaves them out too."""


def main() -> None:
    """Run the job; its result is written last."""
    job_file, result_file = map(Path, sys.argv[1:])  # the peers read sys.argv too
    job = json.loads(job_file.read_text(encoding="utf-8"))
    cost = SIDES[job["side"]](job)
    cost.blas = machine.device().blas
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost.resident_bytes = peak if sys.platform == "darwin" else peak * 1024
    result_file.write_text(json.dumps(asdict(cost)), encoding="utf-8")


class Clock:
    """A reporter that times what belongs to the updates, and watches the memory."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_bytes = 0

    def note(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")

    @contextmanager
    def task(self, title: str, total: int) -> Generator[Callable[..., None]]:
        del total
        timed = not title.startswith(LEFT_OUT)
        mx.reset_peak_memory()
        began = perf_counter()
        try:
            yield self._advance
        finally:
            if timed:
                self.seconds += perf_counter() - began
                self._advance()

    def _advance(self, done: int = 0, text: str = "") -> None:
        del done, text
        self.peak_bytes = max(self.peak_bytes, mx.get_peak_memory())


def ours(job: Job) -> Cost:
    """One run of ``mlx-rsft train``."""
    from mlx_rsft.workflows import train

    clock, cost = Clock(), Cost()
    run_dir = Path(job["out"]) / "run"
    prepared = train.prepare(bench_cost.settings(job), run_dir, clock)
    rows, config = prepared.splits.rows["train"], prepared.resolved.config
    clock.peak_bytes = 0
    result = train.train(prepared, run_dir, clock)
    cost.adapters[job["objectives"][0]] = result["adapter"]
    _count(cost, rows, config, clock)
    cost.peak_bytes += result.get("trunk_cache", {}).get("num_bytes", 0)
    return cost


def our_arms(job: Job) -> Cost:
    """Every objective in one process: the model and its rows are loaded once."""
    from mlx_rsft.objectives import build
    from mlx_rsft.training import loop

    clock, cost = Clock(), Cost()
    trainer = Trainer(job, clock)
    config, rows = trainer.config, trainer.rows
    clock.peak_bytes = 0
    for objective in job["objectives"]:
        stepper = trainer.stepper(build({"name": objective}))
        with clock.task(f"train {objective}", 0) as advance:
            loop.run(
                stepper,
                rows,
                config.training,
                config.optimizer,
                seed=config.seed,
                record=partial(_after, advance),
            )
        trainer.save(objective, cost)
        _count(cost, rows, config, clock)
    if trainer.trunk:
        cost.peak_bytes += trainer.trunk.stats.num_bytes
        trainer.trunk.close()
    return cost


def told(job: Job) -> Cost:
    """Ours on the very batches that a peer drew; for what is learned, not for speed."""
    from mlx_rsft.data.conversation import Example
    from mlx_rsft.objectives import build

    cost = Cost()
    trainer = Trainer(job, Clock())
    (objective,) = job["objectives"]
    stepper = trainer.stepper(build({"name": objective}))
    for batch in job["batches"]:
        stepper.step(
            [
                Example(tuple(tokens), ((start, len(tokens)),), "")
                for tokens, start in batch
            ]
        )
    trainer.save(objective, cost)
    return cost


class Trainer:
    """One loaded model whose fresh adapter is trained several times."""

    def __init__(self, job: Job, clock: Clock) -> None:
        from mlx_rsft.models import recompute
        from mlx_rsft.models.split import SplitModel
        from mlx_rsft.workflows import assemble, caching, sizing

        self._out = Path(job["out"])
        self.config = config = bench_cost.settings(job).config
        self._loaded = loaded = assemble.model(config, clock)
        paths = assemble.training_paths(config)
        self.rows = assemble.splits(paths, config, loaded, clock).rows["train"]
        self._split = SplitModel(loaded.model)
        self._adapter_config = assemble.fresh_adapter(loaded, config)
        self._fresh: Any = loaded.model.trainable_parameters()
        self._split.recomputed = recompute.chosen(
            config.training.grad_checkpoint, sizing.trained_blocks(self._split)
        )
        passes = caching.Passes(job["epochs"] * len(job["objectives"]))
        self.trunk = caching.trunk(
            config.training, loaded, self._split, self.rows, passes, clock
        )

    def stepper(self, objective: Any) -> Any:
        """What trains the adapter anew."""
        from mlx_rsft.workflows import assemble

        self._loaded.model.update(self._fresh)
        return assemble.stepper(
            self._split, objective, self._loaded, self.config, self.trunk
        )

    def save(self, objective: str, cost: Cost) -> None:
        """Write the adapter, and where it is."""
        from mlx_rsft.models import adapters

        folder = self._out / objective.replace(":", "-")
        adapters.save(self._loaded.model, dict(self._adapter_config), folder)
        cost.adapters[objective] = str(folder)


def _after(advance: Callable[[int], None], _record: object) -> None:
    advance(1)


def _count(cost: Cost, rows: Any, config: Any, clock: Clock) -> None:
    """Add what one pass over all steps read, from the order that training has."""
    from mlx_rsft import lanes
    from mlx_rsft.data import batching
    from mlx_rsft.training import loop
    from mlx_rsft.workflows import assemble

    training, budget = config.training, assemble.token_budget(config)
    for step in range(loop.num_steps(training, len(rows))):
        places = batching.window(step, len(rows), training.batch_size, config.seed)
        drawn = [rows[place] for place in places]
        lengths = [len(row.tokens) for row in drawn]
        cost.tokens += sum(lengths)
        cost.supervised += sum(row.num_supervised for row in drawn)
        for group in batching.micro_batches(lengths, budget, lanes.count()):
            width = batching.padded_width(max(lengths[place] for place in group))
            cost.positions += width * len(group)
    cost.head_rows = cost.supervised
    cost.checkpoint = training.grad_checkpoint == "all"
    cost.seconds, cost.peak_bytes = clock.seconds, clock.peak_bytes


SIDES: dict[str, Callable[[Job], Cost]] = {
    "ours": ours,
    "ours, all arms": our_arms,
    "ours, told": told,
    "mlx-lm": bench_peers.mlx_lm,
    "mlx-lm-lora": bench_peers.mlx_lm_lora,
}


if __name__ == "__main__":
    main()
