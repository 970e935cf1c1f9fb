"""Adapters that PEFT wrote, on mlx-lm's models: read by us, without torch.

Which modules are adapted is told by the tensors alone; ``target_modules``, a list or an
expression, says which of them PEFT would make. Everything that changes what the factors
mean is either done here or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.errors import ModelError, RsftError, raise_together
from mlx_rsft.models import families, fitted, tensor_file
from mlx_rsft.models.families import FAMILIES
from mlx_rsft.models.peft_config import PeftConfig
from mlx_rsft.models.stored import Stored
from mlx_rsft.models.tensor_file import Entry

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B, MAGNITUDE = "lora_a", "lora_b", "m"
KINDS = {
    "lora_A.weight": A,
    "lora_B.weight": B,
    "lora_embedding_A": A,
    "lora_embedding_B": B,
    "lora_magnitude_vector": MAGNITUDE,
}
COPIES = {
    f"{PREFIX}{module}{inner}.weight": module
    for module in (families.HEAD, families.EMBEDDING)
    for inner in ("", ".base_layer")
}
"""Where PEFT puts the base model's embeddings too, if adapters are on them."""
MERGED = "Merge it into its base model with PEFT (merge_and_unload), and pass that."


def read(model: nn.Module, folder: Path, text: Mapping[str, Any]) -> Stored:
    """A PEFT folder as an adapter of this model.

    Args:
        model: The bare model that it is for.
        folder: Holds ``adapter_model.safetensors``.
        text: Its ``adapter_config.json``.

    Raises:
        ModelError: If it is no LoRA or DoRA of this model, or means more than that;
            with every reason.
    """
    config = PeftConfig.checked(text, folder)
    path = _weights(folder)
    entries = tensor_file.check_fractions(path)
    named = _named(entries, path)
    modules = _modules(model, named, config, path)
    raise_together(_problems(modules, named, entries, config, path))
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    _check_copies(model, loaded, path)
    scales = {name: config.scale(name) for name in named}
    rank = max(config.rank(name) for name in named)
    common = scales[min(scales)] if len(set(scales.values())) == 1 else 1.0
    tensors = {
        f"{name}.{kind}": _as_mlx(kind, loaded[stored], rank, scales[name] / common)
        for name, parts in named.items()
        for kind, stored in parts.items()
    }
    return Stored(_mlx_config(config, named, rank, common), tensors)


def _check_copies(model: nn.Module, loaded: dict[str, mx.array], path: Path) -> None:
    """Raise ModelError if embeddings that come along are not those of the base model."""
    there = dict(model.named_modules())
    problems: list[RsftError] = []
    for name in COPIES.keys() & loaded.keys():
        module, copy = there.get(COPIES[name]), loaded[name]
        own = fitted.weight(module) if module else mx.zeros((0,))
        same = own.shape == copy.shape and mx.allclose(own, copy, 1e-2, 1e-4).item()
        if not same:
            reason = f"{name} comes along and is not that of the base model"
            problems.append(ModelError(f"{reason}.", where=str(path), hint=MERGED))
    raise_together(problems)


def _as_mlx(kind: str, stored: mx.array, rank: int, folded: float) -> mx.array:
    """A tensor as mlx-lm holds it: turned, padded to the common rank, scaled alike."""
    value = stored.astype(mx.float32)
    if kind == MAGNITUDE:
        return value
    if kind == A:
        return mx.pad(value.T, [(0, 0), (0, rank - len(value))])
    return mx.pad(value.T * folded, [(0, rank - value.shape[1]), (0, 0)])


def _mlx_config(
    config: PeftConfig, named: Mapping[str, Any], rank: int, scale: float
) -> dict[str, Any]:
    found = [families.block_module(name) for name in named]
    return {
        "fine_tune_type": "dora" if config.dora else "lora",
        "num_layers": max(1, len({place[0] for place in found if place})),
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": config.dropout,
            "keys": sorted(named),
        },
    }


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"{WEIGHTS} is missing" + ("; pickles are not read." if pickled else "."),
            where=str(folder),
            hint="Save it again with PEFT: save_pretrained writes safetensors.",
        )
    return path


def _named(entries: Mapping[str, Entry], path: Path) -> dict[str, dict[str, str]]:
    """By module, the names of its tensors in the file by their kind."""
    found: dict[str, dict[str, str]] = {}
    problems: list[RsftError] = []
    for name in entries:
        if name in COPIES:
            continue
        kind = next((kind for kind in KINDS if name.endswith(f".{kind}")), None)
        if kind is None or not name.startswith(PREFIX):
            reason = f"{name[:80]!r} is no tensor of a LoRA"
            problems.append(ModelError(f"{reason}.", where=str(path), hint=MERGED))
            continue
        module = name.removeprefix(PREFIX).removesuffix(f".{kind}")
        found.setdefault(module, {})[KINDS[kind]] = name
    raise_together(problems)
    if not found:
        raise ModelError("There is no tensor in it.", where=str(path))
    return found


def _modules(
    model: nn.Module,
    named: Mapping[str, Any],
    config: PeftConfig,
    path: Path,
) -> dict[str, nn.Module]:
    """The modules that are adapted.

    Raises:
        ModelError: If the model, or what is known of its family, has no such module.
    """
    kind = str(getattr(model, "model_type", ""))
    if kind not in FAMILIES:
        raise ModelError(
            f"What PEFT calls the modules of a {kind} model is not known.",
            where=str(path),
            hint=f"Known: {', '.join(FAMILIES)}. {MERGED}",
        )
    there = dict(model.named_modules())
    tied = not hasattr(model, families.HEAD)
    problems: list[RsftError] = []
    for name in named:
        if name not in there or not families.known(FAMILIES[kind], name):
            reason = f"the {kind} model has no module {name[:80]!r}"
        elif name == families.EMBEDDING and tied:
            reason = f"{name} is the head too in mlx-lm, but not in PEFT"
        elif name == families.EMBEDDING and config.dora:
            reason = f"{name} has a DoRA, which mlx-lm computes otherwise"
        else:
            continue
        problems.append(ModelError(f"{reason}.", where=str(path), hint=MERGED))
    raise_together(problems)
    return {name: there[name] for name in named}


def _problems(
    modules: Mapping[str, nn.Module],
    named: Mapping[str, Mapping[str, str]],
    entries: Mapping[str, Entry],
    config: PeftConfig,
    path: Path,
) -> list[RsftError]:
    """What is missing, unexpected or of another shape, tensor by tensor."""
    problems: list[RsftError] = []
    for name, module in modules.items():
        expected = _shapes(module, config.rank(name), dora=config.dora)
        for kind in expected.keys() | named[name].keys():
            stored = named[name].get(kind)
            found = entries[stored] if stored else None
            if (
                found
                and found.shape == expected.get(kind)
                and found.dtype[-2:] in FLOAT
            ):
                continue
            shown = f"{found.dtype} {list(found.shape)}" if found else "missing"
            wanted = expected.get(kind)
            said = f"expected {list(wanted)}" if wanted else "which is no DoRA"
            problems.append(
                ModelError(f"{name}: {kind} is {shown}, {said}.", where=str(path))
            )
    return problems


FLOAT = ("16", "32")


def _shapes(module: nn.Module, rank: int, *, dora: bool) -> dict[str, tuple[int, ...]]:
    """Shapes in PEFT's file, of factors for this module."""
    weight: mx.array = module["weight"]
    rows, width = weight.shape
    if "scales" in module:
        width = width * 32 // int(module.bits)  # pyright: ignore
    if isinstance(module, nn.Embedding | nn.QuantizedEmbedding):
        return {A: (rank, rows), B: (width, rank)}
    magnitude: dict[str, tuple[int, ...]] = {MAGNITUDE: (rows,)} if dora else {}
    return {A: (rank, width), B: (rows, rank), **magnitude}
