"""Every setting there is: its type, default, limits and help text, in one place.

Flags, configuration files and their checks are all drawn from these fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

PRECISIONS = ("auto", "stored", "float32", "bfloat16", "float16")
DATA_FORMATS = (
    "auto",
    "messages",
    "prompt-completion",
    "alpaca",
    "sharegpt",
    "text",
)
SCHEDULES = ("constant", "linear", "cosine")


def _setting(default: object, about: str, **limits: object) -> Any:
    """A field with its help text and its limits: ``least``, ``above``, ``choices``."""
    return field(default=default, metadata={"about": about, **limits})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which base model, and how it is held in memory."""

    source: str = _setting(
        "",
        'Hub id, local folder, .gguf file, "demo" or "demo-gemma".',
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
    format: str = _setting(
        "auto",
        "How rows are written; auto tells it from their keys.",
        choices=DATA_FORMATS,
    )
    map: tuple[str, ...] = _setting(
        (), "Columns under other names: question=prompt,answer=completion."
    )
    encoding: str = _setting(
        "auto", "Encoding of the files; auto: UTF-8, or what their first bytes say."
    )
    train_on: str = _setting(
        "all",
        "What is learned: all assistant turns, the last, or everything.",
        choices=("last", "all", "everything"),
    )
    template: str = _setting(
        "model",
        "Chat template: the model's own, plain (turns joined by a blank line), or the "
        "path of a .jinja file.",
    )
    max_length: int = _setting(2048, "Longest row in tokens.", least=2)
    overlong: str = _setting(
        "refuse",
        "What becomes of a longer row: refuse all, drop it, or truncate its earliest "
        "context; no answer is ever cut.",
        choices=("refuse", "drop", "truncate"),
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


def read(config: Config, name: str) -> object:
    """The value of the setting with full name ``table.key``."""
    holder: object = config
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder
