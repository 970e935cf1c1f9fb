"""What all arms of a comparison, or all trials of a search, share: loaded once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft.config import FLAG, SET, Resolved
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import ConfigError, RunError, raise_together
from mlx_rsft.evaluation import Gauge
from mlx_rsft.models import adapters, fitted
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective
from mlx_rsft.settings import OF_ONE_RUN
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.workflows import arms, assemble, caching, sizing, starting
from mlx_rsft.workflows.arms import Stage
from mlx_rsft.workflows.assemble import Paths
from mlx_rsft.workflows.caching import Passes
from mlx_rsft.workflows.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Plot:
    """What is to be put on stage.

    Attributes:
        arms: Objectives by their names.
        training: The files that a run reads.
        scored: The files of the splits that finished runs are scored on.
        gauges: The metrics; the first one decides.
    """

    out: Path
    arms: Mapping[str, Objective]
    seeds: Sequence[int]
    training: Paths
    scored: Paths
    gauges: Mapping[str, Gauge]
    baseline: str = ""


def check_settings(resolved: Resolved, what: str) -> None:
    """Raise ConfigError for settings with which arms cannot be trained alike.

    Args:
        resolved: The settings.
        what: A noun with its article, for the message.
    """
    configuration.require(resolved.config, "model.source", "data.source")
    assemble.check_length_settings(resolved)
    if any(name.startswith("objective.") for name in resolved.origins):
        raise ConfigError(
            f"{what} takes its objectives from --arm.",
            where="objective",
            hint="Leave [objective] out of the settings.",
        )
    refuse_named(
        resolved,
        OF_ONE_RUN,
        f"{what} trains every arm to its end, and leaves no checkpoints.",
        hint="Leave it out; mlx-rsft train has a use for it.",
    )
    optimizers.check(resolved.config.optimizer, resolved.config.adapter)
    adapters.check(resolved.config.adapter)
    starting.refuse(resolved.config)


def refuse_named(
    resolved: Resolved, names: Collection[str], said: str, *, hint: str
) -> None:
    """Raise ConfigError for settings without a use that the command line names.

    A file of settings may be of other commands as well, so there they may stand.
    """
    raise_together(
        [
            ConfigError(said, where=name, hint=hint)
            for name in names
            if resolved.origins.get(name) in {FLAG, SET}
        ]
    )


def check_folder(out: Path, *, mark: str, aside: Collection[str], what: str) -> None:
    """Raise RunError if a folder holds anything but what was begun here.

    Args:
        out: The folder.
        mark: The file that says what it is.
        aside: Names that may be there before that file.
        what: A noun, for the message.
    """
    if out.exists() and not out.is_dir():
        raise RunError(
            "The folder is a file.", where=str(out), hint="Pass another --out."
        )
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
    if inside - set(aside) and mark not in inside:
        raise RunError(
            f"The folder holds something that is no {what}.",
            where=str(out),
            hint="Pass another --out; nothing is overwritten.",
        )


def stage(resolved: Resolved, plot: Plot, reporter: Reporter) -> Stage:
    """Load model and rows, and draw what each seed begins with; no trunk cache yet.

    Raises:
        RsftError: Whatever is wrong with data, model or arms.
    """
    config = resolved.config
    loaded = assemble.model(config, reporter)
    splits = assemble.splits({**plot.training, **plot.scored}, config, loaded, reporter)
    arms.check_tags(plot.arms, splits)
    split = SplitModel(loaded.model)
    starts, adapter_config = _starts(loaded, resolved, plot.seeds)
    rows = splits.rows[TRAIN]
    held_most = max(plot.arms.values(), key=sizing.pulled)
    split.recomputed = sizing.recomputed(config, split, rows, held_most, reporter)
    return Stage(
        out=plot.out,
        resolved=resolved,
        arms=plot.arms,
        baseline=plot.baseline,
        seeds=plot.seeds,
        loaded=loaded,
        split=split,
        splits=splits,
        tests=tuple(plot.scored),
        adapter_config=adapter_config,
        starts=starts,
        trunk=None,
        gauges=plot.gauges,
        every=0,
    )


def _starts(
    loaded: LoadedModel, resolved: Resolved, seeds: Sequence[int]
) -> tuple[dict[int, Mapping[str, Any]], dict[str, Any]]:
    """What ``train`` with each seed would begin with, and the adapter's file."""
    starts: dict[int, Mapping[str, Any]] = {}
    adapter_config: dict[str, Any] = {}
    for seed in seeds:
        fitted.remove(loaded.model)
        config = replace(resolved.config, seed=seed)
        adapter_config = assemble.fresh_adapter(loaded, config)
        starts[seed] = loaded.model.trainable_parameters()
    return starts, adapter_config


def trunk(
    stage: Stage, trained: float, scored: float, reporter: Reporter
) -> Trunk | None:
    """One cache for all arms and evaluations.

    Args:
        stage: What they share.
        trained: Rows that will be trained on, as often as that happens.
        scored: The same of rows scored without a gradient.
        reporter: Told whether there is one.
    """
    rows = [row for split in stage.splits.rows.values() for row in split]
    passes = Passes(trained / len(rows), scored / len(rows))
    training = stage.resolved.config.training
    return caching.trunk(training, stage.loaded, stage.split, rows, passes, reporter)
