"""Every setting there is: its type, default, limits and help text, in one place.

Flags, configuration files and their checks are all drawn from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("auto", "stored", "float32", "bfloat16", "float16")
DATA_FORMATS = ("auto", "messages", "prompt-completion", "alpaca", "sharegpt", "text")
QUANTIZATIONS = ("none", "4", "8", "mxfp4")
METHODS = ("lora", "dora", "full")
OPTIMIZERS = ("adamw", "adam", "adafactor", "lion", "muon", "sgd")
SCHEDULES = ("constant", "linear", "cosine", "wsd")


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
    quantize: str = _setting(
        "none",
        "Hold the blocks' weights in 4 or 8 bits, or in mxfp4, as QLoRA does; a model "
        "that is quantised already keeps its own.",
        choices=QUANTIZATIONS,
    )
    trust_remote_code: bool = _setting(
        False, "Run Python code that comes with the model."
    )


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which rows, and how long they may be."""

    source: str = _setting(
        "",
        "Folder with train.jsonl and test*.jsonl, one file, or hf:owner/name.",
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
        "auto",
        "Encoding of the files; auto: Unicode in any form, or Shift_JIS proved by kana.",
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
    """What is trained, and how much of the model."""

    method: str = _setting(
        "lora",
        "Low-rank factors, the same with a learned magnitude (dora), or the weights "
        "themselves (full).",
        choices=METHODS,
    )
    rank: int = _setting(8, "Rank of the LoRA factors.", least=1)
    scale: float = _setting(
        4.0,
        "Multiplier of the LoRA branch: PEFT's alpha / rank; with rslora its alpha.",
        above=0,
    )
    rslora: bool = _setting(
        False, "Multiply by scale / sqrt(rank), so that one scale fits every rank."
    )
    layers: str = _setting(
        "last:8", 'Blocks that are trained: "last:8", "4-11" (from 0), or "all".'
    )
    keys: tuple[str, ...] = _setting(
        (),
        "Modules that are trained, such as self_attn.q_proj in every chosen block, or "
        "lm_head, model.embed_tokens outside them; none: all linear ones in the "
        "blocks; with full every weight in them, and with full and all the whole "
        "model.",
    )
    dropout: float = _setting(0.0, "Dropout on the LoRA input.", least=0, below=1)
    init: str = _setting(
        "",
        "Begin from this adapter, of mlx-lm or PEFT; method, rank, scale, layers, keys "
        "and dropout are then its own.",
    )


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """The optimizer, its learning rate over time, and a clipped gradient norm."""

    name: str = _setting(
        "adamw",
        "What turns gradients into steps; muon steps matrices in the blocks and "
        "leaves the rest to adamw. beta1, beta2, momentum and eps by --set.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = _setting(
        1e-3, "Peak learning rate; try a tenth for lion, a hundredth for full.", above=0
    )
    warmup: float = _setting(
        0.1, "Share of the steps with a rising learning rate.", least=0, below=1
    )
    schedule: str = _setting(
        "cosine",
        "Learning rate after the warm-up; wsd: stays, then falls linearly.",
        choices=SCHEDULES,
    )
    decay: float = _setting(
        0.2, "Share of the steps, at the end, in which wsd falls.", above=0, below=1
    )
    final: float = _setting(
        0.0, "Share of the peak that the schedule falls to.", least=0, below=1
    )
    weight_decay: float = _setting(
        0.0,
        "Weight decay; decoupled, but part of the gradient in sgd and muon.",
        least=0,
    )
    clip_norm: float = _setting(
        1.0, "Largest global gradient norm; 0 switches clipping off.", least=0
    )
    lora_plus: float = _setting(
        1.0, "LoRA+: learning rate of lora_b over that of lora_a, such as 16.", least=1
    )
    beta1: float = _setting(
        0.9, "Memory of the mean gradient; adamw, adam, lion.", least=0, below=1
    )
    beta2: float = _setting(
        0.0,
        "Memory of the squared gradient (lion: of the mean); 0: the optimizer's own, "
        "0.999, lion 0.99.",
        least=0,
        below=1,
    )
    momentum: float = _setting(
        0.0, "Momentum of sgd and muon; 0: none in sgd, 0.95 in muon.", least=0, below=1
    )
    eps: float = _setting(1e-8, "Added to the denominator of adamw and adam.", above=0)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long, and in what portions."""

    epochs: float = _setting(
        3.0, "Passes over the training rows; not with --steps.", above=0
    )
    steps: int = _setting(0, "Optimizer steps; 0: as many as the epochs need.", least=0)
    batch_size: int = _setting(16, "Rows per optimizer step.", least=1)
    token_budget: int = _setting(
        0,
        "Padded tokens computed at once; a step is cut to fit. 0: 2048, and 512 on the "
        "CPU backend, which has no use for more.",
        least=0,
    )
    grad_checkpoint: str = _setting(
        "off",
        "Trained blocks that keep their input alone and are computed again for the "
        "gradient: a number, all, off; auto: as few as fit. Saves memory, costs time.",
    )
    trunk_cache: str = _setting(
        "auto",
        "Keep what frozen blocks below the adapter make of each row; auto: where it "
        "pays, in memory if it fits there.",
        choices=("auto", "off", "memory", "disk"),
    )
    trunk_gb: float = _setting(
        0.0,
        "Most it may take, GB; 0: a quarter of memory, half the free disk.",
        least=0,
    )
    checkpoint_every: int = _setting(
        50,
        "Steps between checkpoints that --resume goes on from; 0: only at the "
        "beginning, the end and a stop.",
        least=0,
    )
    keep: int = _setting(2, "How many checkpoints are kept, the newest.", least=1)
    keep_at: tuple[int, ...] = _setting(
        (), "Steps whose checkpoints are kept for good, such as 100,200.", least=1
    )
    battery_floor: int = _setting(
        20, "Battery charge, %, below which a run waits; 0: never.", least=0, below=101
    )
    eval_every: int = _setting(
        0,
        "Steps between looks at the validation splits during a run; 0: only at its end.",
        least=0,
    )
    best: str = _setting(
        "",
        "Keep the adapter of the look that was best in SPLIT.METRIC, such as valid.nll; "
        "none: that of the last step.",
    )
    patience: int = _setting(
        0, "Looks without a better one that end a run; 0: none do.", least=0
    )
    least_gain: float = _setting(0.0, "How much better a better look is.", least=0)
    kl_budget: float = _setting(
        0.0,
        "Divergence from the base model, nats per token of the split of best, that ends "
        "a run and is never the best; 0: none.",
        least=0,
    )


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured, and on which rows."""

    metrics: tuple[str, ...] = _setting(
        (),
        "Metrics, such as nll,numeric:tolerance=0.01; see mlx-rsft metrics. None: all "
        "cheap ones.",
    )
    splits: tuple[str, ...] = _setting((), "Splits, by name; none: every test split.")
    max_tokens: int = _setting(64, "Longest generated answer, in tokens.", least=1)
    samples: int = _setting(
        8, "Answers per row for metrics that look at samples.", least=1
    )
    temperature: float = _setting(0.7, "Temperature of those samples.", above=0)
    pairs: int = _setting(50, "Most pairs of answers on a rater sheet.", least=1)
    side_effects: str = _setting(
        "auto",
        "After training, note in the manifest what changed beside the task: drift, what "
        "was forgotten, entropy, length, refusals; auto: where arms are compared.",
        choices=("auto", "on", "off"),
    )
    general: bool = _setting(
        False,
        "Score bundled general questions too, as split general: what is forgotten.",
    )


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


OF_ONE_RUN = (
    *("training.checkpoint_every", "training.keep", "training.keep_at"),
    *("training.eval_every", "training.best", "training.patience"),
    *("training.least_gain", "training.kl_budget"),
)
"""What a run by itself saves, and which of its states it keeps; no arm of several does."""
