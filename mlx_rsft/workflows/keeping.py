"""The checkpoints of one run: when they are saved, and how a run goes on from one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import files, records
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import Config
from mlx_rsft.training import checkpoint
from mlx_rsft.training.checkpoint import Facts
from mlx_rsft.training.loop import Position
from mlx_rsft.training.step import Stepper


@dataclass(frozen=True, slots=True)
class Held:
    """A run that was cut off: its folder, its manifest, its newest checkpoint."""

    run: RunDir
    card: Mapping[str, Any]
    facts: Facts

    def reopen(self) -> RunDir:
        """Leave of the records what was there when the checkpoint was saved.

        Raises:
            RunError: If some of that is missing.
        """
        records.cut(self.run.steps, self.facts.step)
        records.cut(self.run.evals, self.facts.evals)
        return self.run

    def told(self) -> dict[str, Any]:
        """What of the manifest stays as it is."""
        return {
            "command": self.card["command"],
            "config_sha256": self.card["config_sha256"],
            "started": self.card["started"],
            "probe": self.card["probe"],
            "resumed": [*self.card["resumed"], self.facts.step],
        }

    @property
    def position(self) -> Position:
        """Where the run stands, its last updates that were left out counted."""
        skipped = 0
        for step in _lines(self.run.steps):
            skipped = skipped + 1 if step.get("skipped") else 0
        return Position(self.facts.step, skipped)


class Keeper:
    """Saves the state of a run every so many steps, and keeps the newest few.

    Args:
        identity: What checkpoints are known by; None: none are saved.
    """

    def __init__(
        self,
        run: RunDir,
        stepper: Stepper,
        config: Config,
        num_steps: int,
        identity: Mapping[str, Any] | None,
    ) -> None:
        self._run, self._stepper, self._config = run, stepper, config
        self._num_steps, self._identity = num_steps, identity
        self._saved, self._before, self._began = -1, 0.0, time.perf_counter()

    def begin(self, held: Held | None) -> Position:
        """Start from what is held, or save the beginning; says where the run stands."""
        if held:
            path = checkpoint.path(self._run.checkpoints, held.facts.step)
            checkpoint.restore(path, self._stepper)
            self._saved, self._before = held.facts.step, held.facts.seconds
            return held.position
        if self._identity is not None:
            model = self._stepper.split.model
            self._stepper.optimizer.init(model.trainable_parameters())
            self.save(0)
        return Position()

    def after(self, step: int) -> None:
        """Save if it is time to."""
        every = self._config.training.checkpoint_every
        if every and step % every == 0:
            self.save(step)

    def save(self, step: int) -> None:
        """Save the state after ``step`` steps, unless that is there already.

        Raises:
            RunError: If it cannot be written; those before it are as they were.
        """
        if self._identity is None or step == self._saved:
            return
        for path in (self._run.steps, self._run.evals):
            if path.exists():
                files.sync(path)
        seconds = self._before + time.perf_counter() - self._began
        facts = Facts(
            step,
            self._num_steps,
            self._config.seed,
            len(_lines(self._run.evals)),
            round(seconds, 2),
            self._identity,
        )
        checkpoint.write(self._run.checkpoints, self._stepper, facts)
        checkpoint.tidy(self._run.checkpoints, self._config.training.keep)
        self._saved = step


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(records.read_lines(path)) if path.exists() else []
