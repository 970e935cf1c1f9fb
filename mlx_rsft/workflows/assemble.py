"""From settings to objects: here and in ``rendering`` alone they are unpacked."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rsft import evaluation, files, machine
from mlx_rsft.config import Resolved
from mlx_rsft.data import source, templates
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.splits import is_validation
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import Gauge, Sampling
from mlx_rsft.models import adapters, load
from mlx_rsft.models.download import Report
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Objective, build
from mlx_rsft.objectives.choose import AUTO
from mlx_rsft.ranks import ALONE, Ranks
from mlx_rsft.settings import Config
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import rendering
from mlx_rsft.workflows.reporter import Reporter

INITIAL_ADAPTER = 0x5EED
"""Keeps the adapter's random numbers apart from those of the training steps."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows as tokens by split name, and the files they came from with their hashes."""

    rows: Mapping[str, Sequence[Example]]
    files: Mapping[str, Mapping[str, str]]

    def as_record(self, source_name: str) -> dict[str, Any]:
        """The data's identity for the manifest."""
        return {
            "source": source_name,
            "splits": {
                name: {
                    "rows": len(rows),
                    "supervised_tokens": sum(row.num_supervised for row in rows),
                    "sha256": dict(self.files[name]),
                }
                for name, rows in self.rows.items()
            },
        }


def is_auto(config: Config) -> bool:
    """Whether the objective is left to a probe.

    Raises:
        ConfigError: If ``auto`` comes with parameters.
    """
    name = str(config.objective.get("name", AUTO))
    with_parameters = ":" in name or set(config.objective) - {"name"}
    if name.partition(":")[0] == AUTO and with_parameters:
        raise ConfigError(
            "auto takes no parameters.",
            where="objective",
            hint="Name an objective to set its parameters, such as dft:floor=0.1.",
        )
    return name == AUTO


def with_objective(
    resolved: Resolved, chosen: Mapping[str, object]
) -> tuple[Resolved, Objective]:
    """The objective of a table, and the settings with that table spelled out."""
    objective = build(chosen)
    config = replace(resolved.config, objective=objective.as_table())
    named = AUTO if is_auto(resolved.config) else resolved.origins["objective.name"]
    origins = {f"objective.{key}": named for key in ("name", *objective.parameters)}
    return replace(resolved, config=config, origins=origins | dict(resolved.origins)), (
        objective
    )


def check_length_settings(resolved: Resolved) -> None:
    """Raise ConfigError if both ways to say how long were used."""
    if resolved.is_given("training.steps") and resolved.is_given("training.epochs"):
        raise ConfigError(
            "Both steps and epochs are given.",
            where="training",
            hint="Keep one; steps counts updates, epochs counts passes over the data.",
        )


Paths = Mapping[str, Sequence[Path]]
"""The files of each split, by its name."""


def training_paths(config: Config) -> Paths:
    """The rows to train on, as split ``train``, and those that the run looks at.

    That is ``valid`` where there is one, and the split that the best state is told by.
    """
    place = Path(config.data.source).expanduser()
    found = source.find_splits(place)
    paths = {source.TRAIN: source.training_files(found, place)}
    valid = found.get(source.VALID)
    if valid is not None and not source.is_one_split(place):
        paths[source.VALID] = valid
    if config.training.best:
        name = config.training.best.partition(".")[0]
        paths[name] = source.pick(found, name, place)
    return paths


def validation_paths(config: Config) -> Paths:
    """``valid`` and the shifted ``valid_NAME``, such as there are; no test split."""
    place = Path(config.data.source).expanduser()
    found = {} if source.is_one_split(place) else source.find_splits(place)
    return {name: files for name, files in found.items() if is_validation(name)}


def evaluation_paths(config: Config) -> Paths:
    """The named splits; with no name every test split, or all if there is none."""
    place = Path(config.data.source).expanduser()
    found = source.find_splits(place)
    names = config.evaluation.splits or [
        name for name in found if name != source.TRAIN and not is_validation(name)
    ]
    return {name: source.pick(found, name, place) for name in names or found}


def splits(
    paths: Paths, config: Config, loaded: LoadedModel, reporter: Reporter
) -> Splits:
    """Every split as tokens of the model.

    Raises:
        DataError: With all rows that cannot be used, at once.
    """
    hashes = {
        name: {str(path): files.sha256(path) for path in split}
        for name, split in paths.items()
    }
    rows = {
        name: rendering.split(name, split, hashes[name], config, loaded, reporter)
        for name, split in paths.items()
    }
    return Splits(rows, hashes)


def model(
    config: Config, reporter: Reporter, adapter: Path | None = None
) -> LoadedModel:
    """The base model with the chosen template; says what was corrected on the way.

    The files of an adapter that is to be put on it are looked at first, because a model
    takes seconds to load.
    """
    if adapter is not None:
        adapters.look(adapter)
    with _loading(config, reporter) as report:
        loaded = load.load(config.model, report)
    return _spoken(loaded, config, reporter)


def outline(config: Config, reporter: Reporter) -> LoadedModel:
    """The same without its weights."""
    with _loading(config, reporter) as report:
        loaded = load.outline(config.model, report)
    return _spoken(loaded, config, reporter)


def _spoken(loaded: LoadedModel, config: Config, reporter: Reporter) -> LoadedModel:
    templates.choose(loaded.tokenizer, config.data.template)
    for note in loaded.notes:
        reporter.note(note)
    return loaded


def tokenizer(config: Config, reporter: Reporter) -> Any:
    """The base model's tokenizer alone, with the chosen template."""
    with _loading(config, reporter) as report:
        found = load.tokenizer(config.model, report)
    templates.choose(found, config.data.template)
    return found


@contextmanager
def _loading(config: Config, reporter: Reporter) -> Generator[Report]:
    with reporter.task(f"load {config.model.source}", 0) as advance:

        def report(done: int, total: int) -> None:
            advance(0, f"fetching, {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        yield report


def metrics(config: Config) -> dict[str, Gauge]:
    """What is measured on each split."""
    chosen = config.evaluation
    sampling = Sampling(chosen.samples, chosen.temperature, config.seed)
    return evaluation.choose(chosen.metrics, sampling)


def fresh_adapter(loaded: LoadedModel, config: Config) -> dict[str, Any]:
    """Put the adapter that the seed determines on the model; its mlx-lm config."""
    mx.random.seed(config.seed ^ INITIAL_ADAPTER)
    return adapters.attach(loaded.model, config.adapter)


def token_budget(config: Config) -> int:
    """Padded tokens that are computed at once, in training."""
    own = 512 if machine.backend() == "cpu" else 2048
    return config.training.token_budget or own


def stepper(
    split: SplitModel,
    objective: Objective,
    loaded: LoadedModel,
    config: Config,
    trunk: Trunk | None = None,
    ranks: Ranks = ALONE,
) -> Stepper:
    """Everything an optimizer step needs beside its rows."""
    return Stepper(
        split,
        objective,
        optimizers.make(config.optimizer),
        References(split, objective),
        token_budget=token_budget(config),
        clip_norm=config.optimizer.clip_norm,
        kept=kept(objective.composition.keep, loaded.tokenizer),
        trunk=trunk,
        ranks=ranks,
    )


def kept(kind: str, tokenizer: Any) -> frozenset[int]:
    """The token ids that keep weight 1, by the objective's ``keep``."""
    ends = frozenset(tokenizer.eos_token_ids)
    special = ends | frozenset(tokenizer.all_special_ids)
    return {"none": frozenset[int](), "end": ends, "special": special}[kind]


def adapted(loaded: LoadedModel, adapter: Path | None) -> SplitModel:
    """The model ready to be measured, with a saved adapter on it if one is named."""
    if adapter is not None:
        adapters.load(loaded.model, adapter)
    return SplitModel(loaded.model)
