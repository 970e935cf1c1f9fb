"""PEFT's ``adapter_config.json``: what of it we do, and what is refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlx_rsft.errors import ModelError, raise_together

T = TypeVar("T", int, float, bool)

WITHOUT_EFFECT = frozenset(
    {
        *("peft_type", "task_type", "base_model_name_or_path", "revision"),
        *("auto_mapping", "inference_mode", "peft_version", "runtime_config"),
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
        *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"),
        *("layers_to_transform", "layers_pattern", "init_lora_weights", "bias"),
        *("megatron_core", "qalora_group_size", "ensure_weight_tying"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    }
)
"""Keys that are read here, or say nothing about what saved factors mean."""
BASE_CHANGING = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Ways to begin that change the base model's weights."""
EXPRESSION = re.compile(r"(?:[\w^$|()\[\]-]|\\[.d]|\.\*|\\d\+|\[0-9\]\+|\.)+")
"""Patterns whose search cannot run away."""
MOST_STARS = 3


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What the factors mean.

    Attributes:
        r: Rank of every module that ``ranks`` does not name.
        alpha: Likewise; the multiplier is alpha / rank, with rslora alpha / root rank.
        ranks: Rank by a name or expression that a module's name ends in.
        alphas: Alpha, likewise.
    """

    r: int
    alpha: float
    dropout: float
    rslora: bool
    dora: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    @staticmethod
    def checked(text: Mapping[str, Any], folder: Path) -> PeftConfig:
        """The configuration of a folder.

        Raises:
            ModelError: With everything in it that is wrong or not done here.
        """
        where = str(folder / "adapter_config.json")
        problems = [
            ModelError(reason, where=where, hint=hint) for reason, hint in _odd(text)
        ]
        raise_together(problems)
        try:
            return PeftConfig(
                r=_number(text, "r", int, 8),
                alpha=_number(text, "lora_alpha", float, 8.0),
                dropout=_dropout(text),
                rslora=_number(text, "use_rslora", bool, default=False),
                dora=_number(text, "use_dora", bool, default=False),
                ranks=_pattern(text, "rank_pattern", int),
                alphas=_pattern(text, "alpha_pattern", float),
            )
        except ValueError as problem:
            raise ModelError(f"{problem}.", where=where) from None

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return _matched(self.ranks, module, self.r)

    def scale(self, module: str) -> float:
        """What a module's low-rank branch is multiplied by."""
        rank = self.rank(module)
        over = math.sqrt(rank) if self.rslora else rank
        return _matched(self.alphas, module, self.alpha) / over


def _odd(text: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is refused, each with the way out."""
    merge = "Merge it into its base model with PEFT, and pass that with --model."
    found: list[tuple[str, str]] = []
    kind = text.get("peft_type")
    if kind != "LORA":
        return [(f"peft_type is {kind!r}; only LORA is read.", merge)]
    if text.get("bias", "none") != "none":
        found.append((f"bias is {text['bias']!r}; biases are not adapted here.", merge))
    begun = str(text.get("init_lora_weights", "")).lower()
    if begun.startswith(BASE_CHANGING):
        found.append(
            (
                f"init_lora_weights is {begun!r}, which changes the base model too.",
                "Save it with path_initial_model_for_weight_conversion, as a plain LoRA.",
            )
        )
    found += [
        (f"{key} is set, which is not done here.", merge)
        for key in sorted(text.keys() - WITHOUT_EFFECT)
        if text[key]
    ]
    return found


def _number(text: Mapping[str, Any], key: str, kind: type[T], default: T) -> T:
    value: Any = text.get(key, default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{key} is {str(value)[:80]!r}, no {kind.__name__}")
    if kind is not bool and not 0 < value < math.inf:
        raise ValueError(f"{key} is {value}, not above 0")
    return value


def _dropout(text: Mapping[str, Any]) -> float:
    return (
        _number(text, "lora_dropout", float, 0.0) if text.get("lora_dropout") else 0.0
    )


def _pattern(text: Mapping[str, Any], key: str, kind: type[T]) -> dict[str, T]:
    given: Any = text.get(key) or {}
    if not isinstance(given, dict):
        raise ValueError(f"{key} is no table")
    for expression in given:
        stars = expression.count("*") + expression.count("+")
        plain = EXPRESSION.fullmatch(expression) and stars <= MOST_STARS
        try:
            re.compile(expression)
        except re.error:
            plain = None
        if not plain:
            raise ValueError(f"{key} has an expression not read here, {expression!r}")
    return {name: _number(given, name, kind, kind(1)) for name in given}


def _matched(pattern: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first expression that the module's name ends in, as PEFT does."""
    for expression, value in pattern.items():
        if re.match(rf"(.*\.)?({expression})$", module):
            return value
    return default
