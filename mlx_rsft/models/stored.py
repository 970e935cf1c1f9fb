"""An adapter's folder, read: mlx-lm's or PEFT's, checked before anything is allocated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft import files, manifest
from mlx_rsft.errors import ModelError, RsftError, raise_together
from mlx_rsft.models import fitted, tensor_file

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"
SUMS = "sha256"
"""Where ``adapter_config.json`` has the hash of the weights beside it."""
MOST_CONFIG = 16 << 20
METHODS = ("lora", "dora", "full")


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter as mlx-lm has it: its ``adapter_config.json`` and its tensors."""

    config: Mapping[str, Any]
    tensors: Mapping[str, mx.array]


def config(folder: Path) -> dict[str, Any]:
    """The ``adapter_config.json`` of a folder, whoever wrote it.

    Raises:
        ModelError: If it is missing or no JSON object.
    """
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CONFIG)
    except OSError as problem:
        raise ModelError(
            f"{CONFIG} cannot be read ({problem.strerror}).",
            where=str(folder),
            hint="Pass the adapter/ folder of a run, or one that PEFT saved.",
        ) from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError("This is no JSON object.", where=str(path))
    if SUMS in found or manifest.SEAL in found:
        found = _unsealed(text, path)
    return found


def _unsealed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        return manifest.unsealed(text.decode())
    except ValueError:
        raise ModelError(
            "This is not as it was written.",
            where=str(path),
            hint=f"Copy it again; who edited it on purpose removes {manifest.SEAL} and "
            f"{SUMS} from it.",
        ) from None


def is_peft(text: Mapping[str, Any]) -> bool:
    """Whether PEFT wrote this configuration."""
    return "peft_type" in text


def read(model: nn.Module, folder: Path, text: Mapping[str, Any]) -> Stored:
    """An adapter of mlx-lm; whether it is one of this model is seen by ``put_on``.

    Raises:
        ModelError: If its files are missing, damaged or contradict themselves.
    """
    del model
    checked = _checked(text, folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder))
    tensor_file.check_fractions(path)
    sums: Any = checked.pop(SUMS, {})
    if sums and sums != {path.name: files.sha256(path)}:
        raise ModelError(
            "These are not the weights that were written with the configuration.",
            where=str(path),
            hint="Copy the whole folder again.",
        )
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    return Stored(checked, loaded)


def _checked(text: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    method = text.get("fine_tune_type", "lora")
    held: Any = text.get("lora_parameters", {})
    wrong = ""
    if method not in METHODS:
        wrong = f"fine_tune_type is {str(method)[:80]!r}, none of {', '.join(METHODS)}"
    elif type(text.get("num_layers")) is not int:
        wrong = "num_layers is no whole number"
    elif method != "full":
        wrong = _wrong(held)
    if wrong:
        raise ModelError(f"{wrong}.", where=str(folder / CONFIG))
    return {"fine_tune_type": method, **text}


def _wrong(held: Any) -> str:
    """What is wrong with ``lora_parameters``; empty if nothing is."""
    if not isinstance(held, dict):
        return "lora_parameters is no table"
    keys: Any = held.get("keys")
    scale: Any = held.get("scale")
    if type(held.get("rank")) is not int or held["rank"] < 1:
        return "rank is no whole number above 0"
    if type(scale) not in (int, float) or not math.isfinite(scale):
        hint = ", and alpha is not read" if "alpha" in held else ""
        return f"scale is no number{hint}"
    dropout: Any = held.get("dropout")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        return "dropout is no number from 0 to below 1"
    if keys is not None and not (
        isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    ):
        return "keys is no list of names"
    return ""


def put_on(model: nn.Module, stored: Stored, where: Path) -> None:
    """Put an adapter on a bare model, as mlx-lm does, and miss no tensor.

    Raises:
        ModelError: If it is not one of this model; names every tensor, and leaves the
            model bare.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    settings, method = stored.config, stored.config["fine_tune_type"]
    if method != "full":
        parameters = dict(settings["lora_parameters"])
        dora = method == "dora"
        linear_to_lora_layers(model, settings["num_layers"], parameters, use_dora=dora)
    flat: Any = tree_flatten(model.parameters())
    expected = dict[str, mx.array](flat)
    if method != "full":
        names = {name for place in fitted.places(model) for name in place.factors()}
        expected = {name: expected[name] for name in names}
    problems = _misfits(stored, expected, where, complete=method != "full")
    if problems:
        fitted.remove(model)
    raise_together(problems)
    model.load_weights(list(stored.tensors.items()), strict=False)


def _misfits(
    stored: Stored, expected: Mapping[str, mx.array], where: Path, *, complete: bool
) -> list[RsftError]:
    said: list[str] = []
    for name, tensor in stored.tensors.items():
        if name not in expected:
            said.append(f"{name[:80]!r} is no part of the adapter of this model")
        elif tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, not {list(expected[name].shape)}"
            said.append(f"{name} is {shapes}")
    missing = sorted(expected.keys() - stored.tensors.keys()) if complete else []
    if missing:
        said.append(f"it lacks {len(missing)} tensors, the first is {missing[0]}")
    if complete and not expected:
        said.append("no module of this model is one of its keys")
    return [
        ModelError(
            f"The adapter cannot be loaded on this model: {reason}.",
            where=str(where),
            hint="Pass it with the model it was trained on.",
        )
        for reason in said
    ]
