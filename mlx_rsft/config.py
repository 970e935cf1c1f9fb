"""Settings: typed, frozen, checked all at once, each with where it came from.

Precedence is default < file < ``--set`` < flag, as layers of flat ``table.key`` names.
The ``[objective]`` table stays open here (its parameters belong to the objective); a
layer that names an objective replaces the table of the layers below it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from mlx_rsft.errors import ConfigError, RsftError, nearest, raise_together

PRECISIONS = ("auto", "stored", "float32", "bfloat16", "float16")
SCHEDULES = ("constant", "linear", "cosine")


def _setting(default: object, about: str, **limits: object) -> Any:
    """A field with its help text and its limits: ``least``, ``above``, ``choices``."""
    return field(default=default, metadata={"about": about, **limits})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which base model, and how it is held in memory."""

    source: str = _setting(
        "",
        'Hub id, local folder, .gguf file, or "demo".',
        required="--model",
    )
    precision: str = _setting(
        "auto",
        "What weights are computed in; auto: as stored, on the CPU backend float32.",
        choices=PRECISIONS,
    )
    trust_remote_code: bool = _setting(
        False, "Run Python code that comes with the model."
    )


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which rows, and how long they may be."""

    source: str = _setting(
        "",
        "Folder with train.jsonl and test*.jsonl, or one file.",
        required="--data",
    )
    max_length: int = _setting(
        2048, "Longest row in tokens; a longer one is refused.", least=2
    )


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What is trained beside the frozen base model."""

    rank: int = _setting(8, "Rank of the LoRA factors.", least=1)
    scale: float = _setting(
        4.0, "Multiplier of the LoRA branch (PEFT's alpha / rank).", above=0
    )
    layers: str = _setting("last:8", 'Blocks that get an adapter: "last:N" or "all".')
    dropout: float = _setting(0.0, "Dropout on the LoRA input.", least=0, below=1)


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW with warm-up, a schedule and a clipped gradient norm."""

    learning_rate: float = _setting(1e-3, "Peak learning rate.", above=0)
    warmup: float = _setting(
        0.1, "Share of the steps with a rising learning rate.", least=0, below=1
    )
    schedule: str = _setting(
        "cosine", "Learning rate after the warm-up.", choices=SCHEDULES
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay.", least=0)
    clip_norm: float = _setting(
        1.0, "Largest global gradient norm; 0 switches clipping off.", least=0
    )


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long, and in what portions."""

    epochs: float = _setting(
        3.0, "Passes over the training rows; not with --steps.", above=0
    )
    steps: int = _setting(0, "Optimizer steps; 0: as many as the epochs need.", least=0)
    batch_size: int = _setting(16, "Rows per optimizer step.", least=1)
    token_budget: int = _setting(
        2048, "Padded tokens computed at once; a step is cut to fit.", least=16
    )


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured, and on which rows."""

    metrics: tuple[str, ...] = _setting((), "Metrics, by name; none: all cheap ones.")
    splits: tuple[str, ...] = _setting((), "Splits, by name; none: every test split.")
    max_tokens: int = _setting(64, "Longest generated answer, in tokens.", least=1)


@dataclass(frozen=True, slots=True)
class Config:
    """Every value of one run. ``objective`` is its table: ``name`` and parameters."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    objective: Mapping[str, object] = field(default_factory=dict[str, object])
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = _setting(
        0, "Fixes data order, initial adapter and dropout.", least=0, below=2**63
    )


TABLES: dict[str, type] = {
    "model": ModelSettings,
    "data": DataSettings,
    "adapter": AdapterSettings,
    "optimizer": OptimizerSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}
OPEN_TABLE = "objective"
DEFAULT, FLAG, SET = "default", "flag", "--set"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its full name, its Python type, and its field."""

    name: str
    type: type
    field: dataclasses.Field[Any]

    @property
    def about(self) -> str:
        return str(self.field.metadata["about"])


def _keys() -> dict[str, Key]:
    found: dict[str, Key] = {}
    for table, holder in [("", Config), *TABLES.items()]:
        hints = get_type_hints(holder)
        for item in dataclasses.fields(holder):
            if "about" in item.metadata:
                name = f"{table}.{item.name}".lstrip(".")
                found[name] = Key(name, hints[item.name], item)
    return found


KEYS: dict[str, Key] = _keys()


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one origin, by full key name."""

    origin: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked configuration and the origin of each value."""

    config: Config
    origins: Mapping[str, str]

    def is_given(self, key: str) -> bool:
        """Whether somebody chose the value, as opposed to our default."""
        return self.origins.get(key, DEFAULT) != DEFAULT


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge ``layers`` over the defaults, later ones first in rank, and check all.

    Raises:
        ConfigError: With every unknown key, wrong type and value out of range.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    problems: list[RsftError] = []
    for layer in layers:
        if f"{OPEN_TABLE}.name" in layer.values:
            for key in [key for key in values if key.startswith(f"{OPEN_TABLE}.")]:
                del values[key], origins[key]
        for name, value in layer.values.items():
            try:
                values[name] = _checked(name, value, layer.origin)
                origins[name] = layer.origin
            except ConfigError as problem:
                problems.append(problem)
    raise_together(problems)
    return Resolved(_build(values), origins)


def require(config: Config, *names: str) -> None:
    """Raise ConfigError for each named setting that nobody gave."""
    problems = [
        ConfigError(
            f"{name} is not given.",
            where=name,
            hint=f"Pass {KEYS[name].field.metadata['required']}, or set it in a file.",
        )
        for name in names
        if not read(config, name)
    ]
    raise_together(problems)


def read(config: Config, name: str) -> object:
    """The value of the setting with full name ``table.key``."""
    holder: object = config
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


def _build(values: Mapping[str, object]) -> Config:
    def table(name: str) -> dict[str, object]:
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in values.items()
            if key.startswith(prefix)
        }

    made: dict[str, Any] = {name: kind(**table(name)) for name, kind in TABLES.items()}
    if "seed" in values:
        made["seed"] = values["seed"]
    return Config(objective=table(OPEN_TABLE), **made)


def _checked(name: str, value: object, origin: str) -> object:
    if name.startswith(f"{OPEN_TABLE}."):
        return value
    if name not in KEYS:
        raise ConfigError(
            f"Unknown setting {name!r}.",
            where=origin,
            hint=nearest(name, [*KEYS, f"{OPEN_TABLE}.name"]),
        )
    key = KEYS[name]
    try:
        typed = _typed(key, value)
        _within_limits(key, typed)
    except ValueError as problem:
        raise ConfigError(
            f"{name} = {value!r}: {problem}.", where=origin, hint=key.about
        ) from None
    return typed


def _typed(key: Key, value: object) -> object:
    if key.type is bool or isinstance(value, bool):
        if key.type is bool and isinstance(value, bool):
            return value
    elif key.type is float and isinstance(value, int | float):
        if math.isfinite(value):
            return float(value)
    elif key.type in (int, str) and isinstance(value, key.type):
        return value
    elif key.type == tuple[str, ...]:
        items: Sequence[object] = (
            [part.strip() for part in value.split(",")]
            if isinstance(value, str)
            else value
            if isinstance(value, list | tuple)
            else [None]
        )
        if all(isinstance(item, str) and item for item in items):
            return tuple(items)
    expected = (
        "list of names"
        if key.type not in (int, float, str, bool)
        else (
            {int: "whole number", float: "number", str: "text", bool: "true or false"}
        )[key.type]
    )
    raise ValueError(f"expected a {expected}")


def _within_limits(key: Key, value: object) -> None:
    limits = key.field.metadata
    if "choices" in limits and value not in limits["choices"]:
        raise ValueError(nearest(str(value), limits["choices"]).rstrip(".?"))
    if isinstance(value, int | float):
        if "least" in limits and value < limits["least"]:
            raise ValueError(f"must be at least {limits['least']}")
        if "above" in limits and value <= limits["above"]:
            raise ValueError(f"must be above {limits['above']}")
        if "below" in limits and value >= limits["below"]:
            raise ValueError(f"must be below {limits['below']}")


def from_file(path: Path) -> Layer:
    """The settings of one TOML file as a layer.

    Raises:
        ConfigError: If the file is missing or is not TOML; names the line.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"Cannot read the configuration ({problem.strerror}).", where=str(path)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"Not valid TOML: {problem}.", where=str(path)) from None
    return Layer(str(path), _flat(tree))


def _flat(tree: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def from_assignments(assignments: Sequence[str]) -> Layer:
    """``--set table.key=value`` arguments as a layer; values are TOML or plain text.

    Raises:
        ConfigError: If an argument has no ``=``.
    """
    values: dict[str, object] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                f"{text!r} assigns nothing.", where=SET, hint="Write table.key=value."
            )
        values[name.strip()] = _parsed(value.strip())
    return Layer(SET, values)


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def as_toml(resolved: Resolved) -> str:
    """The whole configuration as TOML, each line with its origin as a comment."""
    config = resolved.config

    def line(table: str, name: str, value: object) -> str:
        key = f"{table}.{name}".lstrip(".")
        return f"{name} = {_literal(value)}  # {resolved.origins.get(key, DEFAULT)}"

    lines = [line("", "seed", config.seed)]
    for item in dataclasses.fields(config):
        held = getattr(config, item.name)
        if item.name == "seed":
            continue
        pairs = held.items() if item.name == OPEN_TABLE else _fields(held)
        lines += ["", f"[{item.name}]"]
        lines += [line(item.name, name, value) for name, value in pairs]
    return "\n".join(lines) + "\n"


def _fields(held: Any) -> list[tuple[str, object]]:
    return [(item.name, getattr(held, item.name)) for item in dataclasses.fields(held)]


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False)
