"""The checkpoints of one run: when they are saved, and how a run goes on from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import files, manifest, records
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import TrainingSettings
from mlx_rsft.training import checkpoint
from mlx_rsft.training.checkpoint import Facts
from mlx_rsft.training.loop import Position
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows.spent import Clock, Spent


@dataclass(frozen=True, slots=True)
class Held:
    """A run that was cut off: its folder, its manifest, its newest checkpoint.

    Attributes:
        facts: None if it was cut off before the first one: it starts over.
        extend_to: Steps that it is now to have; 0: as many as before.
    """

    run: RunDir
    card: Mapping[str, Any]
    facts: Facts | None
    extend_to: int = 0

    @property
    def step(self) -> int:
        return self.facts.step if self.facts else 0

    @property
    def num_steps(self) -> int:
        """Its length, as last extended."""
        longer = [entry["steps"] for entry in self.card["extended"]]
        return self.extend_to or [self.card["identity"]["steps"], *longer][-1]

    @property
    def spent(self) -> Spent:
        return Spent(**self.facts.spent) if self.facts else Spent()

    def reopen(self) -> None:
        """Leave of the records what was there when the checkpoint was saved.

        Raises:
            RunError: If some of that is missing, or the run has gone on meanwhile.
        """
        newest = checkpoint.found(self.run.checkpoints)[-1:]
        held = [checkpoint.path(self.run.checkpoints, self.step)] if self.facts else []
        text = self.run.manifest.read_text(encoding="utf-8")
        if newest != held or manifest.unsealed(text) != self.card:
            raise RunError(
                "The run has gone on meanwhile.",
                where=str(self.run.path),
                hint="Give the command again.",
            )
        records.cut(self.run.steps, self.step)
        records.cut(self.run.evals, self.facts.evals if self.facts else 0)

    def told(self) -> dict[str, Any]:
        """What of the manifest stays as it is, and that the run went on."""
        kept = ("command", "config_sha256", "started", "probe")
        longer = [{"step": self.step, "steps": self.extend_to}]
        return {
            **{key: self.card[key] for key in kept},
            "resumed": [*self.card["resumed"], self.step],
            "extended": [*self.card["extended"], *(longer if self.extend_to else [])],
        }

    @property
    def position(self) -> Position:
        """Where the run stands, its last updates that were left out counted."""
        skipped = 0
        for step in _lines(self.run.steps):
            skipped = skipped + 1 if step.get("skipped") else 0
        return Position(self.step, skipped)


class Keeper:
    """Saves the state of a run every so many steps, and keeps the newest few.

    Args:
        identity: What checkpoints are known by; None: none are saved.
    """

    def __init__(
        self,
        run: RunDir,
        stepper: Stepper,
        settings: TrainingSettings,
        identity: Mapping[str, Any] | None,
        clock: Clock,
    ) -> None:
        self._run, self._stepper, self._settings = run, stepper, settings
        self._known = manifest.record_sha256(identity) if identity else ""
        self._clock, self._saved = clock, -1

    def begin(self, held: Held | None) -> Position:
        """Start from what is held, or save the beginning; says where the run stands."""
        if held and held.facts:
            path = checkpoint.path(self._run.checkpoints, held.step)
            checkpoint.restore(path, self._stepper)
            self._saved = held.step
            return held.position
        if self._known:
            model = self._stepper.split.model
            self._stepper.optimizer.init(model.trainable_parameters())
            self.save(0)
        return Position()

    def after(self, step: int) -> None:
        """Save if it is time to."""
        every = self._settings.checkpoint_every
        if every and step % every == 0:
            self.save(step)

    def save(self, step: int) -> None:
        """Save the state after ``step`` steps, unless that is there already.

        Raises:
            RunError: If it cannot be written; those before it are as they were.
        """
        if not self._known or step == self._saved:
            return
        for path in (self._run.steps, self._run.evals):
            if path.exists():
                files.sync(path)
        evals, spent = len(_lines(self._run.evals)), asdict(self._clock.spent())
        facts = Facts(step, self._known, evals, spent)
        checkpoint.write(self._run.checkpoints, self._stepper, facts)
        checkpoint.tidy(self._run.checkpoints, self._settings.keep)
        self._saved = step


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(records.read_lines(path)) if path.exists() else []
