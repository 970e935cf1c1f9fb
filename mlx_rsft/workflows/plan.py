"""Before a run: will it fit, how long will it take, what to change so that it fits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rsft import config as configuration
from mlx_rsft import files, machine, memory
from mlx_rsft.config import Resolved
from mlx_rsft.data.batching import steps_per_epoch, window
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import CheckFailed, ConfigError
from mlx_rsft.memory import Items
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Objective
from mlx_rsft.settings import Config
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.workflows import assemble, caching, fitting, sizing, starting
from mlx_rsft.workflows.caching import Passes
from mlx_rsft.workflows.fitting import Advice
from mlx_rsft.workflows.portions import RowSize
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.sizing import Estimate, Where, estimate

PROBE_STEPS = 2
"""The first makes the optimizer's moments; the second is measured."""
ASSUMED_SHARE = 4
"""One token in so many is supervised, where there are no rows to count."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A real step on this machine: its peak, and seconds per padded token."""

    peak_bytes: int
    seconds_per_token: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found; ``settled`` are the settings with all advice taken."""

    resolved: Resolved
    where: Where
    rows: int
    assumed: bool
    estimate: Estimate
    items: Items
    measured: Measured | None
    advice: Sequence[Advice]
    settled: Resolved

    @property
    def fits(self) -> bool:
        return self.items.total <= self.where.available

    def as_record(self) -> dict[str, Any]:
        """The plan as ``--json`` prints it; seconds are null if nothing was measured."""
        training = self.resolved.config.training
        per_epoch = steps_per_epoch(self.rows, training.batch_size)
        seconds = None
        if self.measured:
            seconds = self.measured.seconds_per_token * self.estimate.step_tokens
        return {
            "items": self.items.as_record(),
            "peak_bytes": self.items.total,
            "available_bytes": self.where.available,
            "fits": self.fits,
            "machine": self.where.name,
            "seconds_per_step": seconds,
            "seconds_per_epoch": None if seconds is None else seconds * per_epoch,
            "steps": loop.num_steps(training, self.rows),
            "steps_per_epoch": per_epoch,
            "rows": self.rows,
            "rows_assumed": self.assumed,
            "largest_batch": {
                "rows": self.estimate.shape.rows,
                "tokens": self.estimate.shape.width,
                "supervised": self.estimate.shape.supervised,
            },
            "blocks_computed_again": len(self.estimate.recomputed),
            "estimated_bytes": self.estimate.items.total,
            "measured": self.measured is not None,
            "advice": [advice.as_record() for advice in self.advice],
        }

    def write_fit(self, path: Path) -> None:
        """Write the settings that fit, for ``--config``; complete or not at all.

        Raises:
            CheckFailed: If none were found; nothing is written.
            ConfigError: If the file cannot be written.
        """
        if not self.fits and not (self.advice and self.advice[-1].fits):
            least = self.advice[-1].peak_bytes if self.advice else self.items.total
            raise CheckFailed(
                f"Nothing makes this fit: at the least it holds {gib(least)} of "
                f"{gib(self.where.available)} GiB.",
                hint="Take a smaller model, or a machine with more memory.",
            )
        try:
            text = configuration.given_as_toml(self.settled)
            files.write_text(path.expanduser(), text)
        except OSError as problem:
            raise ConfigError(
                f"The settings cannot be written ({problem.strerror or problem}).",
                where=str(path),
            ) from None


def gib(num_bytes: float) -> str:
    """Bytes as GiB, the unit that memory is sold in."""
    return f"{num_bytes / memory.GIB:.1f}"


def plan(
    resolved: Resolved,
    reporter: Reporter,
    *,
    memory_gib: int | None = None,
    measure: bool = False,
) -> Plan:
    """Estimate what a run holds without its weights, and measure a step if asked.

    Args:
        resolved: Settings of a run. Without data, rows of the longest length allowed
            are assumed.
        reporter: Told what is done.
        memory_gib: Memory of the Mac that is asked about; None: this machine.
        measure: Whether to run a real step here, by which the estimate is corrected.

    Raises:
        RsftError: Whatever is wrong with settings, data or model.
    """
    configuration.require(resolved.config, "model.source")
    assemble.check_length_settings(resolved)
    config = resolved.config
    optimizers.check(config.optimizer, config.adapter)
    adapters.check(config.adapter)
    starting.refuse(config)
    if measure and memory_gib:
        raise ConfigError(
            "A step measured here says nothing about another machine.",
            where="--measure",
            hint="Leave out --memory or --measure.",
        )
    table = {"name": "sft"} if assemble.is_auto(config) else config.objective
    _, objective = assemble.with_objective(resolved, table)
    where = _where(memory_gib)
    examples = _examples(config, reporter)
    rows = [RowSize(len(row.tokens), row.num_supervised) for row in examples]
    longest = max(row.tokens for row in rows)
    with reporter.task("size", 0):
        found = estimate(config, rows, objective, where)
    held, measured = found.items, None
    if measure:
        measured = _measured(resolved, objective, examples, found, where, reporter)
        held = held.corrected(measured.peak_bytes)
    ratio = held.total / found.items.total
    advice, settled = list[Advice](), resolved
    if held.total > where.available:
        with reporter.task("look for what fits", 0):
            advice, settled = fitting.climb(
                resolved,
                found,
                longest,
                int(where.available / ratio),
                lambda other: estimate(other, rows, objective, where),
            )
    assumed = not config.data.source
    return Plan(
        resolved, where, len(rows), assumed, found, held, measured, advice, settled
    )


def _where(memory_gib: int | None) -> Where:
    if memory_gib:
        stock = machine.backend() == "cpu"
        total = memory_gib * memory.GIB
        share = memory.may_hold(memory_gib)
        article = "an" if memory_gib == 8 else "a"
        return Where(f"{article} {memory_gib} GB Mac", share, total, stock)
    return sizing.here()


def _examples(config: Config, reporter: Reporter) -> Sequence[Example]:
    if not config.data.source:
        length = config.data.max_length
        start = max(1, length - length // ASSUMED_SHARE)
        row = Example(tuple(range(length)), ((start, length),), "assumed")
        return [row] * config.training.batch_size
    paths = assemble.training_paths(config)
    loaded = assemble.outline(config, reporter)
    paths = {TRAIN: paths[TRAIN]}
    return assemble.splits(paths, config, loaded, reporter).rows[TRAIN]


def _measured(
    resolved: Resolved,
    objective: Objective,
    examples: Sequence[Example],
    found: Estimate,
    where: Where,
    reporter: Reporter,
) -> Measured:
    """Run the step with the largest micro-batch, twice."""
    if found.items.total > where.available:
        raise CheckFailed(
            f"Nothing is measured: by the estimate the run holds "
            f"{gib(found.items.total)} of {gib(where.available)} GiB.",
            hint="Plan without --measure to see what to change.",
        )
    config = resolved.config
    loaded = assemble.model(config, reporter)
    split = SplitModel(loaded.model)
    assemble.fresh_adapter(loaded, config)
    split.recomputed = found.recomputed
    steps = loop.num_steps(config.training, len(examples))
    passes = Passes(steps * config.training.batch_size / len(examples))
    trunk = caching.trunk(config.training, loaded, split, examples, passes, reporter)
    stepper = assemble.stepper(split, objective, loaded, config, trunk)
    split.model.train()
    size = config.training.batch_size
    places = window(found.step, len(examples), size, config.seed)
    chosen = [examples[place] for place in places]
    stepper.references.refresh(0)
    seconds = 0.0
    with reporter.task("measure", PROBE_STEPS) as advance:
        for _ in range(PROBE_STEPS):
            mx.reset_peak_memory()
            began = time.perf_counter()
            stepper.step(chosen)
            seconds = time.perf_counter() - began
            advance(1)
    peak = mx.get_peak_memory()
    pieces = stepper.pieces(chosen, 1.0)
    padded = sum(piece.batch.tokens_BT.size for piece in pieces)
    if trunk:
        trunk.close()
    return Measured(peak, seconds / padded)
