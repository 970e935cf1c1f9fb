"""Which modules are trained: chosen by block and by name, as mlx-lm's loader names them.

Inside blocks a name is relative to the block (``self_attn.q_proj``), outside them it is
that of the whole model (``lm_head``). mlx-lm's loader counts blocks from the last one
only; a range that ends earlier is written to it as the full names of its modules, which
it takes as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.errors import ConfigError, RsftError, nearest, raise_together
from mlx_rsft.settings import AdapterSettings

LAST = re.compile(r"last:(\d+)")
RANGE = re.compile(r"(\d+)-(\d+)")
Fits = Callable[[nn.Module], bool]


@dataclass(frozen=True, slots=True)
class Targets:
    """The modules to train, and how mlx-lm's loader is told of them.

    Attributes:
        modules: Every one of them, by its name in the whole model.
        num_layers: Last blocks that the loader looks at.
        keys: Names that it looks for; None for every linear module in those blocks.
    """

    modules: Mapping[str, nn.Module]
    num_layers: int
    keys: tuple[str, ...] | None


def blocks(layers: str, num_layers: int) -> range:
    """The blocks that ``last:N``, ``A-B`` (both included, from 0) or ``all`` names.

    Raises:
        ConfigError: If it is none of these, or names blocks that the model lacks.
    """
    chosen = range(num_layers) if layers == "all" else range(0)
    if match := LAST.fullmatch(layers):
        chosen = range(num_layers - int(match[1]), num_layers)
    elif match := RANGE.fullmatch(layers):
        chosen = range(int(match[1]), int(match[2]) + 1)
    if not chosen or chosen.start < 0 or chosen.stop > num_layers:
        raise ConfigError(
            f"{layers!r} does not name blocks of this model, which has {num_layers}.",
            where="adapter.layers",
            hint=f'Write "all", "last:N" with N from 1 to {num_layers}, or "A-B" with '
            f"both from 0 to {num_layers - 1}.",
        )
    return chosen


def block_paths(model: Any) -> list[str]:
    """The names of the model's blocks, such as ``model.layers.0``, in their order."""
    paths = {id(module): path for path, module in model.named_modules()}
    return [paths[id(block)] for block in model.layers]


def choose(model: Any, settings: AdapterSettings) -> Targets:
    """The modules that the settings name.

    Raises:
        ConfigError: If a block or a module is named that the model lacks; with every
            such name, and the nearest one that there is.
    """
    full = settings.method == "full"
    count = len(model.layers)
    chosen = blocks(settings.layers, count)
    inside, outside = _candidates(model, chosen, has_weights if full else takes_lora)
    _check(settings.keys, {*inside, *outside})
    if full and not settings.keys:
        modules = _whole(model, chosen)
    else:
        modules = {
            path: module
            for name in settings.keys or inside
            for path, module in inside.get(name, {}).items()
        } | {name: outside[name] for name in settings.keys if name in outside}
    if chosen.stop == count:
        return Targets(modules, len(chosen), settings.keys or None)
    return Targets(modules, count - chosen.start, tuple(modules))


def takes_lora(module: nn.Module) -> bool:
    """Whether mlx-lm has low-rank factors for this kind of module."""
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    kinds = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
    switches = (SwitchLinear, QuantizedSwitchLinear)
    return isinstance(module, (*kinds, *switches)) or hasattr(module, "to_lora")


def has_weights(module: nn.Module) -> bool:
    """Whether there is anything in the module to train."""
    return bool(tree_flatten(module.parameters()))


def _whole(model: Any, chosen: range) -> dict[str, nn.Module]:
    if len(chosen) == len(model.layers):
        return {"": model}
    paths = block_paths(model)
    return {paths[index]: model.layers[index] for index in chosen}


def _candidates(
    model: Any, chosen: range, fits: Fits
) -> tuple[dict[str, dict[str, nn.Module]], dict[str, nn.Module]]:
    """What can be named: modules in the chosen blocks by relative name, and outside."""
    paths = block_paths(model)
    inside: dict[str, dict[str, nn.Module]] = {}
    for index in chosen:
        for name, module in sorted(model.layers[index].named_modules()):
            if name and fits(module):
                inside.setdefault(name, {})[f"{paths[index]}.{name}"] = module
    outside = {
        name: module
        for name, module in model.named_modules()
        if not any(_overlap(name, path) for path in paths) and fits(module)
    }
    return inside, outside


def _overlap(one: str, other: str) -> bool:
    """Whether one module holds the other, or they are the same; "" holds all."""
    first, second = sorted((one, other), key=len)
    return not first or f"{second}.".startswith(f"{first}.")


def _check(keys: tuple[str, ...], known: set[str]) -> None:
    problems: list[RsftError] = [
        ConfigError(
            f"The chosen blocks and what lies outside them have no {key!r} to train.",
            where="adapter.keys",
            hint=_offer(key, known),
        )
        for key in keys
        if key not in known
    ]
    raise_together(problems)


def _offer(key: str, known: set[str]) -> str:
    tied = [name for name in known if name.endswith("embed_tokens")]
    if key == "lm_head" and tied:
        return f"The head of this model shares its weights with {tied[0]}."
    ends = sorted(name for name in known if name.endswith(f".{key}"))
    return f"Did you mean {ends[0]!r}?" if ends else nearest(key, known)
