"""What a run is asked for and what it took: the words between ``bench`` and its runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEED, RANK, SCALE, RATE = 0, 8, 4.0, 1e-3
Job = dict[str, Any]
Row = tuple[list[int], int]


@dataclass(slots=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: Of all updates.
        update_seconds: Of each, as the trainer itself has it.
        tokens: Real tokens of the rows that were trained on, again in each epoch.
        supervised: Those of them that were learned, padding that the peers learn left out.
        positions: That the blocks were given, padding included.
        head_rows: Positions whose logits were computed.
        peak_bytes: Of mlx while training, and what ours keeps of the frozen blocks.
        resident_bytes: Of the process, all of its life.
        checkpoint: Whether blocks were computed anew for the gradient.
        blas: What multiplied matrices.
        adapters: Folder by objective.
        batches: What a peer learned of, update by update: the tokens of each row, padding
            that it learned included, and where those begin that it learned.
    """

    seconds: float = 0.0
    update_seconds: list[float] = field(default_factory=list[float])
    tokens: int = 0
    supervised: int = 0
    positions: int = 0
    head_rows: int = 0
    peak_bytes: int = 0
    resident_bytes: int = 0
    checkpoint: bool = False
    blas: str = ""
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    batches: list[list[Row]] = field(default_factory=list[list[Row]])


def settings(job: Job) -> Any:
    """The settings of ours that are the peers' settings."""
    from mlx_rsft import config

    values: dict[str, object] = {
        "model.source": job["model"],
        "model.precision": "float32",
        "data.source": job["data"],
        "data.max_length": job["max_length"],
        "objective.name": job["objectives"][0],
        "adapter.layers": "all" if job["layers"] == -1 else f"last:{job['layers']}",
        "adapter.rank": RANK,
        "adapter.scale": SCALE,
        "optimizer.learning_rate": RATE,
        "optimizer.warmup": 0,
        "optimizer.schedule": "constant",
        "optimizer.clip_norm": 0,
        "training.epochs": job["epochs"],
        "training.batch_size": job["batch_size"],
        "seed": SEED,
    }
    if job["checkpoint"]:
        values["training.grad_checkpoint"] = "all"
    return config.resolve([config.Layer("scripts/bench", values)])
