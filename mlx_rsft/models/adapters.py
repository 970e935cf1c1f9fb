"""Adapters: put on a model, saved and loaded in mlx-lm's own format.

``adapters.safetensors`` and ``adapter_config.json`` load in stock mlx-lm as they are,
whether they hold low-rank factors or, after full fine-tuning, the weights themselves.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft import files, manifest
from mlx_rsft.errors import ConfigError, ModelError, RsftError, raise_together
from mlx_rsft.models import fitted, peft_adapter, stored, targets, tensor_file
from mlx_rsft.models.targets import Targets
from mlx_rsft.settings import AdapterSettings

OF_FACTORS = ("rank", "scale", "rslora", "dropout")
DORA_BITS = (2, 4, 8)


def check(settings: AdapterSettings) -> None:
    """Raise ConfigError for every setting that the chosen method does not take."""
    plain = AdapterSettings()
    problems: list[RsftError] = [
        ConfigError(
            f"Full fine-tuning has no low-rank factors, so no {name}.",
            where=f"adapter.{name}",
            hint="Leave it out, or choose lora or dora.",
        )
        for name in OF_FACTORS
        if getattr(settings, name) != getattr(plain, name)
    ]
    raise_together(problems if settings.method == "full" else [])


def multiplier(settings: AdapterSettings) -> float:
    """What the low-rank branch is multiplied by, which is what mlx-lm's files hold."""
    root = math.sqrt(settings.rank) if settings.rslora else 1.0
    return settings.scale / root


def attach(model: Any, settings: AdapterSettings) -> dict[str, Any]:
    """Make the chosen part of a frozen model trainable; draws from mlx's random state.

    Returns:
        What mlx-lm needs to build the same layers: ``adapter_config.json``.

    Raises:
        ConfigError: If the settings do not fit the model.
    """
    check(settings)
    chosen = targets.choose(model, settings)
    if settings.method == "full":
        _unfreeze(chosen)
        return {"fine_tune_type": "full", "num_layers": chosen.num_layers}
    from mlx_lm.tuner.utils import linear_to_lora_layers

    dora = settings.method == "dora"
    if dora:
        _check_dora(chosen)
    keys = {} if chosen.keys is None else {"keys": list(chosen.keys)}
    parameters = {
        "rank": settings.rank,
        "scale": multiplier(settings),
        "dropout": settings.dropout,
        **keys,
    }
    linear_to_lora_layers(model, chosen.num_layers, parameters, use_dora=dora)
    model.train(model.training)  # fresh layers would drop out in a model at rest
    mx.eval(model.trainable_parameters())
    _check_magnitudes(model)
    return {
        "fine_tune_type": settings.method,
        "num_layers": chosen.num_layers,
        "lora_parameters": parameters,
    }


def _unfreeze(chosen: Targets) -> None:
    for path, module in chosen.modules.items():
        for inner, part in module.named_modules():
            name = f"{path}.{inner}".strip(".")
            if "scales" in part:
                raise ConfigError(
                    f"The weights of {name} are quantised and cannot be trained.",
                    where="adapter.method",
                    hint="Choose lora or dora, or hold the weights in full with "
                    "--precision float32 and without --quantize.",
                )
        module.unfreeze()
        leaves: list[tuple[str, mx.array]] = tree_flatten(module.parameters())  # pyright: ignore
        if any(leaf.dtype == mx.float16 for _, leaf in leaves):
            raise ConfigError(
                "Full fine-tuning in float16 loses the small steps of an optimizer.",
                where="adapter.method",
                hint="Pass --precision float32 or --precision bfloat16.",
            )


def _check_dora(chosen: Targets) -> None:
    """Refuse by name what mlx-lm's DoRA layers cannot wrap."""
    problems: list[RsftError] = []
    for path, module in chosen.modules.items():
        bits = getattr(module, "bits", 4)
        if isinstance(module, nn.QuantizedEmbedding):
            reason = "is a quantised embedding"
        elif not isinstance(module, nn.Linear | nn.QuantizedLinear | nn.Embedding):
            reason = f"is a {type(module).__name__}"
        elif bits not in DORA_BITS:
            reason = f"has {bits}-bit weights"
        else:
            continue
        problems.append(
            ConfigError(
                f"{path} {reason}, which DoRA does not take.",
                where="adapter.method",
                hint="Choose lora, or name other modules with --keys.",
            )
        )
    raise_together(problems)


def _check_magnitudes(model: nn.Module) -> None:
    """A row of zeros has no direction: DoRA would divide zero by zero."""
    for place in fitted.places(model):
        if "m" in place.module and not mx.all(place.module["m"] > 0).item():
            raise ConfigError(
                f"{place.path} has rows of zeros, which DoRA cannot scale.",
                where="adapter.method",
                hint="Choose lora, or name other modules with --keys.",
            )


def first_trained_block(model: Any) -> int | None:
    """The lowest block with a trainable parameter: what lies below it stays as it is.

    None if nothing can be said to stay below a block: no block is trained, or something
    outside them is, such as the embeddings. A head named ``lm_head`` lies above them.
    """
    blocks = {f"{path}.": i for i, path in enumerate(targets.block_paths(model))}
    trained: set[int] = set()
    for name, _ in tree_flatten(model.trainable_parameters()):
        owner = [index for path, index in blocks.items() if name.startswith(path)]
        if not owner and not name.startswith("lm_head."):
            return None
        trained.update(owner)
    return min(trained, default=None)


def save(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write the trainable parameters as an mlx-lm adapter: complete or not at all.

    Its configuration has a hash of itself and one of the parameters, so that neither is
    taken for whole that is not.
    """
    parameters = dict(tree_flatten(model.trainable_parameters()))
    with files.new_folder(folder) as scratch:
        weights = scratch / stored.WEIGHTS
        tensor_file.write(weights, parameters)
        held = {**config, stored.SUMS: {weights.name: files.sha256(weights)}}
        files.write_json(scratch / stored.CONFIG, manifest.sealed(held))
        files.sync(scratch)


def look(folder: Path) -> None:
    """Raise ModelError for what can be seen of an adapter's files without a model."""
    text = stored.config(folder)
    name = peft_adapter.WEIGHTS if stored.is_peft(text) else stored.WEIGHTS
    if (path := folder / name).is_file():  # which others are no good, ``load`` says
        tensor_file.entries(path)


def load(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Put a saved adapter on a bare model: mlx-lm's, or one that PEFT saved.

    Returns:
        Its ``adapter_config.json``, in mlx-lm's words.

    Raises:
        ModelError: If the folder is no adapter, or not one of this model.
    """
    text = stored.config(folder)
    reading = peft_adapter.read if stored.is_peft(text) else stored.read
    found = reading(model, folder, text)
    try:
        stored.put_on(model, found, folder)
    except (ValueError, TypeError, OverflowError, RuntimeError) as problem:
        raise ModelError(
            f"The adapter cannot be loaded on this model: {problem}",
            where=str(folder),
            hint="Pass it with the model it was trained on.",
        ) from problem
    model.eval()
    return dict(found.config)
