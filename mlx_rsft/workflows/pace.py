"""How fast this machine is at a comparison, by doing a little of each kind of its work.

Only training rows are read: no model has seen a test row when the size is settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mlx_rsft import evaluation
from mlx_rsft.data.batching import window
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.evaluation import generate
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.workflows import aftermath, effects, foreseen, scored
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.budget import Pace, Work
from mlx_rsft.workflows.reporter import Reporter

GENERAL_ROWS, SAFETY_ROWS = 42, 30
"""Bundled prompts that side effects are looked for on; a test holds this to the files."""
LOOKS = 2
"""So often a run looks at the valid split: half-way, and in the end."""
WRITTEN, TOKENS = 8, 4
"""So many answers are begun, and go on for so long, to see how long one takes."""


def measured(stage: Stage, load_s: float, reporter: Reporter) -> Pace:
    """Try everything once on the rows of the first step.

    Args:
        stage: A comparison that is ready; its model is as before when this returns.
        load_s: Seconds that making it ready took.
        reporter: Told how far it is.
    """
    rows = _first_rows(stage)
    with reporter.task("measure a step of each arm", len(stage.arms) + 2) as advance:
        _score(stage, rows, stage.trunk)  # the first time is slower
        score = _seconds(lambda: _score(stage, rows, stage.trunk)) / len(rows)
        whole = _seconds(lambda: _score(stage, rows, None)) / len(rows)
        advance(1)
        step: dict[str, float] = {}
        for name, objective in stage.arms.items():
            step[name] = foreseen.seconds_per_step(stage, objective)
            advance(1, f"{name} {step[name]:.2f} s")
        written = _written(stage, rows)
        advance(1)
    fill = max(0.0, whole - score) if stage.trunk else 0.0
    passes = 3 * (GENERAL_ROWS + effects.ROWS)
    prompts = fill * GENERAL_ROWS + whole * SAFETY_ROWS
    side = written + prompts + score * passes
    return Pace(
        load=load_s,
        fill=fill,
        step=step,
        score=score,
        side=side if aftermath.is_wanted(stage.resolved.config) else 0.0,
        ending=load_s + written + prompts + whole * passes,
    )


def work(stage: Stage) -> Work:
    """What there is to be done, in rows."""
    rows = stage.splits.rows
    valid = len(rows.get(VALID, ()))
    train = len(rows[TRAIN])
    return Work(
        train=train,
        batch=stage.resolved.config.training.batch_size,
        known=valid or min(train, scored.SAMPLE),
        valid=valid,
        looks=LOOKS,
        tests=sum(len(rows[name]) for name in stage.tests),
    )


def _first_rows(stage: Stage) -> list[Example]:
    rows = stage.splits.rows[TRAIN]
    size = stage.resolved.config.training.batch_size
    return [rows[n] for n in window(0, len(rows), size, stage.seeds[0])]


def _seconds(do: Callable[[], None]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _score(stage: Stage, rows: list[Example], trunk: Trunk | None) -> None:
    stage.loaded.model.eval()
    evaluation.measure(
        stage.split,
        stage.loaded.tokenizer,
        rows,
        stage.gauges,
        stage.resolved.config.evaluation.max_tokens,
        trunk=trunk,
    )


def _written(stage: Stage, rows: list[Example]) -> float:
    """Seconds of the answers of a look at side effects, from those of a few tokens."""
    stage.loaded.model.eval()
    some = rows[:WRITTEN]
    first = _seconds(lambda: _write(stage, some, 1))
    another = max(0.0, _seconds(lambda: _write(stage, some, 1 + TOKENS)) - first)
    limit = stage.resolved.config.evaluation.max_tokens
    longest = min(max(row.num_supervised for row in rows), limit)
    written = first + another / TOKENS * (longest - 1)
    declined = first + another / TOKENS * (effects.REFUSAL_TOKENS - 1)
    return (effects.ROWS * written + SAFETY_ROWS * declined) / len(some)


def _write(stage: Stage, rows: list[Example], tokens: int) -> None:
    generate.answers(stage.loaded.model, stage.loaded.tokenizer, rows, tokens)
