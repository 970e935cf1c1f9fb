"""The loop: which rows, which rate, what is written down, and a clean stop.

Order and randomness are functions of (seed, step); the loop keeps no other state.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mlx.core as mx

from mlx_rsft.data.batching import steps_per_epoch, window
from mlx_rsft.data.conversation import Example
from mlx_rsft.records import RowWeights, StepRecord
from mlx_rsft.settings import OptimizerSettings, TrainingSettings
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.step import StepFacts, Stepper

MOST_SKIPPED = 5
"""So many updates in a row that are not finite end a run, or send it back once."""
EASED = 0.5
"""What learning rates are multiplied by after that."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: steps done, and whether somebody or something stopped it.

    Attributes:
        kept: The step whose state the model was left with, if not the last.
    """

    steps: int
    interrupted: bool = False
    diverged: bool = False
    kept: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands.

    Attributes:
        step: Steps done.
        ease: What its learning rates are multiplied by.
        note: What is to be written down with the next step.
    """

    step: int = 0
    ease: float = 1.0
    note: str = ""


def num_steps(settings: TrainingSettings, num_rows: int) -> int:
    """Optimizer steps of a run over ``num_rows`` training rows."""
    if settings.steps:
        return settings.steps
    per_epoch = steps_per_epoch(num_rows, settings.batch_size)
    return max(1, math.ceil(settings.epochs * per_epoch))


def run(
    stepper: Stepper,
    examples: Sequence[Example],
    training: TrainingSettings,
    optimization: OptimizerSettings,
    *,
    seed: int,
    record: Callable[[StepRecord], object],
    start: Position = Position(),
) -> Outcome:
    """Train; ``record`` gets every step as soon as it is done, and may end the run.

    Ctrl-C or a termination signal ends the run after the step at hand, a second one
    at once, by a KeyboardInterrupt. Of several ranks all end where one is to.
    """
    total = num_steps(training, len(examples))
    composition = stepper.objective.composition
    stepper.split.model.train()
    skipped = 0  # a run never goes on from within a row of skipped updates
    ended = False
    with _stop_requests() as stopped:
        for number in range(start.step, total):
            ended, asked = stepper.ranks.any_of(ended, stopped())
            if ended or asked:
                return Outcome(number, interrupted=not ended)
            chosen = window(number, len(examples), training.batch_size, seed)
            rate = optimizers.learning_rate(number, total, optimization) * start.ease
            stepper.optimizer.learning_rate = rate
            stepper.references.refresh(number)
            rank = stepper.ranks.for_rows(len(chosen)).rank
            mx.random.seed(step_seed(seed, number, rank))
            mx.reset_peak_memory()
            began = time.perf_counter()
            facts = stepper.step(
                [examples[index] for index in chosen],
                composition.switched_in(number / total),
            )
            seconds = time.perf_counter() - began
            done = as_record(number + 1, facts, rate, seconds)
            ended = bool(record(replace(done, rows=by_row(chosen, facts))))
            skipped = 0 if facts.applied else skipped + 1
            if skipped == MOST_SKIPPED:
                return Outcome(number + 1, diverged=True)
    return Outcome(total)


def step_seed(seed: int, number: int, rank: int = 0) -> int:
    """The seed of mlx's random state for one step; distinct for nearby runs."""
    return (seed * 1_000_003 + number + (rank << 48)) % 2**64


def as_record(number: int, facts: StepFacts, rate: float, seconds: float) -> StepRecord:
    """The line that ``steps.jsonl`` gets for a step."""
    totals = facts.totals
    count = max(totals.tokens, 1.0)
    return StepRecord(
        step=number,
        loss=totals.objective / facts.divisor,
        nll=totals.nll / count,
        mean_p=totals.probability / count,
        ess=totals.effective_share,
        weight=totals.weight,
        tokens=int(totals.tokens),
        learning_rate=rate,
        grad_norm=facts.grad_norm,
        tokens_per_s=facts.num_tokens / seconds,
        peak_bytes=mx.get_peak_memory(),
        skipped=not facts.applied,
    )


def by_row(chosen: Sequence[int], facts: StepFacts) -> RowWeights:
    """The line that ``weights.jsonl`` gets for a step over these examples."""
    weight, push, p = facts.of_rows
    return RowWeights(chosen, weight, push, p)


@contextmanager
def _stop_requests() -> Generator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one interrupts."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {
        kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def undisturbed() -> Generator[None]:
    """Heed no SIGTERM while something is saved that takes but a moment."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
