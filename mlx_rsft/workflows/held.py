"""A run that was cut off, as its folder has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_rsft import manifest, records
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.training.checkpoint import Facts
from mlx_rsft.workflows.spent import Spent


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
        records.cut(self.run.weights, self.step)
        records.cut(self.run.evals, self.facts.evals if self.facts else 0)

    def told(self) -> dict[str, Any]:
        """What of the manifest stays as it is, and that the run went on."""
        kept = ("command", "config_sha256", "started", "probe", "lineage", "rows")
        longer = [{"step": self.step, "steps": self.extend_to}]
        return {
            **{key: self.card[key] for key in kept},
            "resumed": [*self.card["resumed"], self.step],
            "extended": [*self.card["extended"], *(longer if self.extend_to else [])],
        }
