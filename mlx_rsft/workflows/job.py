"""A run that is ready to start, with everything loaded that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_rsft.config import Resolved
from mlx_rsft.data.source import TRAIN
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.ranks import ALONE, Ranks
from mlx_rsft.training import loop
from mlx_rsft.workflows.assemble import Splits
from mlx_rsft.workflows.best import Aim
from mlx_rsft.workflows.choosing import Chosen
from mlx_rsft.workflows.held import Held


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to start; nothing is written yet.

    Attributes:
        every: Steps between looks at the validation splits; 0: only at the end.
        aim: By what the best state is told; None: the last one is kept.
        identity: What checkpoints are known by; None: the run leaves none.
        held: The run it goes on with; None: it is a new one.
        ranks: The processes that train it together.
    """

    resolved: Resolved
    objective: Objective
    splits: Splits
    loaded: LoadedModel
    split: SplitModel
    adapter_config: Mapping[str, Any]
    trunk: Trunk | None = None
    probe: Chosen | None = None
    every: int = 0
    aim: Aim | None = None
    identity: Mapping[str, Any] | None = None
    held: Held | None = None
    ranks: Ranks = ALONE

    @property
    def num_steps(self) -> int:
        config = self.resolved.config
        return loop.num_steps(config.training, len(self.splits.rows[TRAIN]))

    def summary(self) -> dict[str, Any]:
        """What the run will do, in numbers."""
        rows = self.splits.rows[TRAIN]
        return {
            "model": self.loaded.source,
            "objective": str(self.objective),
            "rows": len(rows),
            "tokens": sum(len(row.tokens) for row in rows),
            "supervised_tokens": sum(row.num_supervised for row in rows),
            "longest": max(len(row.tokens) for row in rows),
            "steps": self.num_steps,
            "batch_size": self.resolved.config.training.batch_size,
        }
