"""Whether to keep the states of frozen blocks, and where: by what it saves and takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_rsft import files, machine, manifest
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk, why_not
from mlx_rsft.models.trunk_cost import Workload, Worth, model_size, worth
from mlx_rsft.models.trunk_store import FolderStore, MemoryStore
from mlx_rsft.settings import TrainingSettings
from mlx_rsft.workflows.reporter import Reporter

AUTO, OFF, MEMORY, DISK = "auto", "off", "memory", "disk"
FOLDER = "trunks"
SHARE_OF_MEMORY = 1 / 4
SHARE_OF_DISK = 1 / 2


@dataclass(frozen=True, slots=True)
class Passes:
    """How often rows will be read: trained on, and scored without a gradient."""

    training: float
    scoring: float = 0.0


def trunk(
    settings: TrainingSettings,
    loaded: LoadedModel,
    split: SplitModel,
    rows: Sequence[Example],
    passes: Passes,
    reporter: Reporter,
) -> Trunk | None:
    """The cache for frozen blocks that the settings ask for, or that pays.

    Says which it is and what it brings, or why there is none.

    Raises:
        ConfigError: If it was asked for by name and cannot be.
    """
    mode = settings.trunk_cache
    if mode == OFF:
        return None
    depth = adapters.first_trained_block(split.model)
    if not depth:
        return _none(mode, "no block lies below all that is trained", None)
    gain = worth(model_size(split, depth), _workload(rows, passes))
    if mode == AUTO and not gain.pays:
        return None
    if reason := why_not(split, depth):
        return _none(mode, reason, reporter)
    if _goes_to_memory(settings, gain):
        reporter.note(f"trunk cache: {gain}, kept in memory.")
        return Trunk(split, depth, MemoryStore(_memory_budget(settings)))
    store, folder = _on_disk(settings)
    reporter.note(f"trunk cache: {gain}, kept in {folder}.")
    weights = json.dumps(loaded.weights(), sort_keys=True)
    return Trunk(split, depth, store, manifest.text_sha256(weights))


def _goes_to_memory(settings: TrainingSettings, gain: Worth) -> bool:
    if settings.trunk_cache != AUTO:
        return settings.trunk_cache == MEMORY
    return gain.num_bytes <= _memory_budget(settings)


def _memory_budget(settings: TrainingSettings) -> int:
    share = int(machine.device().memory_bytes * SHARE_OF_MEMORY)
    return int(settings.trunk_gb * 1e9) or share


def _on_disk(settings: TrainingSettings) -> tuple[FolderStore, Path]:
    folder = files.cache_folder() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    share = int(shutil.disk_usage(folder).free * SHARE_OF_DISK)
    return FolderStore(folder, int(settings.trunk_gb * 1e9) or share), folder


def _none(mode: str, reason: str, reporter: Reporter | None) -> None:
    if mode != AUTO:
        raise ConfigError(
            f"The states of frozen blocks cannot be kept: {reason}.",
            where="training.trunk_cache",
            hint="Leave it at auto, or switch it off.",
        )
    if reporter:
        reporter.note(f"trunk cache: none, because {reason}.")


def _workload(rows: Sequence[Example], passes: Passes) -> Workload:
    lengths = [len(row.tokens) for row in rows]
    return Workload(
        tokens=sum(lengths),
        supervised=sum(row.num_supervised for row in rows),
        length=sum(lengths) / len(lengths),
        training=passes.training,
        scoring=passes.scoring,
    )
