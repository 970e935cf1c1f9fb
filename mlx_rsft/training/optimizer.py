"""The optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.optimizers as optim

from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.settings import AdapterSettings, OptimizerSettings

Filter = Callable[[str, mx.array], bool]
TAKES = {
    "adamw": {"beta1", "beta2", "eps", "weight_decay"},
    "adam": {"beta1", "beta2", "eps"},
    "adafactor": {"weight_decay"},
    "lion": {"beta1", "beta2", "weight_decay"},
    "muon": {"beta1", "beta2", "eps", "weight_decay", "momentum"},
    "sgd": {"weight_decay", "momentum"},
}
"""Settings of each optimizer beside the learning rate; muon's helper is adamw."""
FALLING = {"final"}
SHAPED_BY = {"constant": set[str](), "linear": FALLING, "cosine": FALLING}


def check(settings: OptimizerSettings, adapter: AdapterSettings) -> None:
    """Raise ConfigError for every setting that the chosen optimizer does not take."""
    problems: list[RsftError] = [
        *_unused(settings, TAKES[settings.name], set().union(*TAKES.values()), "name"),
        *_unused(
            settings,
            SHAPED_BY.get(settings.schedule, {"decay", "final"}),
            {"decay", "final"},
            "schedule",
        ),
    ]
    if settings.schedule == "wsd" and settings.warmup + settings.decay > 1:
        problems.append(
            ConfigError(
                f"Warm-up ({settings.warmup:g}) and decay ({settings.decay:g}) are "
                "shares of one run and add up to more than 1.",
                where="optimizer.decay",
            )
        )
    if settings.lora_plus != 1 and adapter.method == "full":
        problems.append(
            ConfigError(
                "LoRA+ has no lora_b to speed up in full fine-tuning.",
                where="optimizer.lora_plus",
            )
        )
    raise_together(problems)


def _unused(
    settings: OptimizerSettings, taken: set[str], known: set[str], chosen: str
) -> list[RsftError]:
    plain = OptimizerSettings()
    name = getattr(settings, chosen)
    return [
        ConfigError(
            f"{name} takes no {key}.",
            where=f"optimizer.{key}",
            hint="adamw is the one with weight decay." if name == "adam" else "",
        )
        for key in sorted(known - taken)
        if getattr(settings, key) != getattr(plain, key)
    ]


def learning_rate(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``num_steps``.

    Rises linearly over the warm-up, whose first step is already above 0, and then stays
    or falls to the share ``final`` of its peak just after the last step.
    """
    warm = math.ceil(settings.warmup * num_steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, num_steps - warm)
    falling = math.ceil(settings.decay * num_steps)
    falls = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "wsd": min(1.0, (num_steps - step) / falling),
    }
    share = settings.final + (1.0 - settings.final) * falls[settings.schedule]
    return settings.learning_rate * share


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are stepped alike: which, how, and how much faster."""

    takes: Filter
    make: Callable[[], optim.Optimizer]
    ratio: float = 1.0


class Grouped(optim.MultiOptimizer):
    """Several optimizers as one; a rate set on it is each group's rate times its ratio.

    Args:
        groups: A parameter belongs to the first that takes it, the last takes all.
    """

    def __init__(self, groups: list[Group]) -> None:
        super().__init__(
            [group.make() for group in groups],
            [group.takes for group in groups[:-1]],
        )
        self._ratios = [group.ratio for group in groups]

    @property
    def learning_rate(self) -> mx.array:
        return self.optimizers[-1].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        for optimizer, ratio in zip(self.optimizers, self._ratios, strict=True):
            optimizer.learning_rate = learning_rate * ratio


def make(settings: OptimizerSettings) -> optim.Optimizer:
    """The optimizer of the settings; its rate is set anew at each step.

    LoRA+ (arXiv:2402.12354) steps every ``lora_b`` with a multiple of the rate. Muon
    takes the matrices inside blocks and leaves all else to AdamW.
    """
    groups = [Group(_is_any, lambda: _one(settings.name, settings))]
    if settings.name == "muon":
        groups = [
            Group(_is_matrix_in_block, groups[0].make),
            Group(_is_any, lambda: _one("adamw", settings)),
        ]
    if settings.lora_plus != 1:
        groups = [
            part
            for group in groups
            for part in (
                Group(_both(_is_lora_b, group.takes), group.make, settings.lora_plus),
                group,
            )
        ]
    if len(groups) == 1:
        return groups[0].make()
    combined = Grouped(groups)
    combined.learning_rate = settings.learning_rate
    return combined


def _one(name: str, settings: OptimizerSettings) -> optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    betas = [settings.beta1, settings.beta2 or (0.99 if name == "lion" else 0.999)]
    if name == "adamw":
        return optim.AdamW(rate, betas, settings.eps, decay, bias_correction=True)
    if name == "adam":
        return optim.Adam(rate, betas, settings.eps, bias_correction=True)
    if name == "lion":
        return optim.Lion(rate, betas, decay)
    if name == "muon":
        return optim.Muon(rate, settings.momentum or 0.95, decay)
    if name == "sgd":
        return optim.SGD(rate, settings.momentum, decay)
    # Its own rates would hide ours, and a factor that starts at zero would stay there.
    return optim.Adafactor(
        rate, weight_decay=decay, scale_parameter=False, relative_step=False
    )


def _is_any(_name: str, _value: mx.array) -> bool:
    return True


def _is_lora_b(name: str, _value: mx.array) -> bool:
    return name.endswith(".lora_b")


def _is_matrix_in_block(name: str, value: mx.array) -> bool:
    return value.ndim == 2 and ".layers." in f".{name}"


def _both(one: Filter, other: Filter) -> Filter:
    return lambda name, value: one(name, value) and other(name, value)
