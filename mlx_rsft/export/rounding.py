"""Merged weights quantised again, and whether the adapter outlives it.

An adapter's change of a weight is often smaller than a step of 4 bits. Rounded to the
nearest step it may be gone, and what is left is the base model under a new name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mlx_rsft import machine
from mlx_rsft.errors import CheckFailed, ConfigError
from mlx_rsft.export import dense, merging, model_folder, prompts
from mlx_rsft.export.live import Live
from mlx_rsft.export.merging import Weights
from mlx_rsft.models import fitted, load, tensor_file
from mlx_rsft.models.quantize import Kind
from mlx_rsft.settings import ModelSettings

MOST_SHARE = 0.25
"""How far a quantised model may be from the live one, as a share of the base's distance.

A small step changes the divergence by its square: an adapter at half its strength lies
at a quarter of the base's distance. So beyond this, rounding has done as much harm as
leaving half of the adapter away.
"""
DEFAULT_GROUP = 64
LEAVES = ("weight", "scales", "biases")


def kinds(live: Live) -> dict[str, Kind]:
    """How each quantised module of the base model is quantised, by its path.

    Raises:
        ConfigError: If none is.
    """
    with dense.bare(live) as model:
        found = _loaded(model)
    # The CPU backend holds quantised models whole; their files still tell.
    found = found or _stored(live)
    if not found:
        raise ConfigError(
            "The base model is not quantised, so there is no kind to go back to.",
            where="--requantize",
            hint="Leave --requantize out, or load the base with --quantize 4.",
        )
    return found


def _loaded(model: nn.Module) -> dict[str, Kind]:
    modules: Any = model.named_modules()
    return {
        path: Kind(module.bits, module.group_size, module.mode)
        for path, module in modules
        if "scales" in module
    }


def held(live: Live) -> str:
    """The kinds of the base model's quantised modules in words; empty if none is."""
    try:
        found = kinds(live)
    except ConfigError:
        return ""
    usual, _ = Counter(found.values()).most_common(1)[0]
    return f"{usual.bits}-bit {usual.mode}, group {usual.group_size}"


def _stored(live: Live) -> dict[str, Kind]:
    table: Any = model_folder.read(live.path).get("quantization") or {}
    if not table:
        return {}
    names = {
        name.removesuffix(".scales")
        for path in live.path.glob("*.safetensors")
        for name in tensor_file.entries(path)
        if name.endswith(".scales")
    }
    return {path: _kind({**table, **_own(table, path)}) for path in sorted(names)}


def _own(table: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    own = table.get(path)
    return own if isinstance(own, dict) else {}


def _kind(table: Mapping[str, Any]) -> Kind:
    group = table.get("group_size", DEFAULT_GROUP)
    return Kind(table.get("bits", 4), group, table.get("mode", "affine"))


def rounded(
    tensors: Weights, chosen: Mapping[str, Kind], kept: Weights
) -> tuple[Weights, dict[str, Any]]:
    """The weights quantised, and the table ``quantization`` that says how.

    Args:
        tensors: Whole weights.
        chosen: How each module is quantised.
        kept: Modules that are quantised already and have not changed: rounding is not
            idempotent, a second time would cost the base model something too.
    """
    result = dict(tensors)
    for path, kind in chosen.items():
        matrix = result.pop(f"{path}.weight")
        if f"{path}.scales" in kept:
            parts = {leaf: kept.get(f"{path}.{leaf}") for leaf in LEAVES}
        else:
            parts = dict(zip(LEAVES, _quantised(matrix, kind)))  # noqa: B905, no biases
        found = {f"{path}.{leaf}": part for leaf, part in parts.items()}
        result |= {name: part for name, part in found.items() if part is not None}
    usual, _ = Counter(chosen.values()).most_common(1)[0]
    others = {p: _as_table(kind) for p, kind in chosen.items() if kind != usual}
    return result, {**_as_table(usual), **others}


def _quantised(matrix: mx.array, kind: Kind) -> tuple[mx.array, ...]:
    return mx.quantize(
        matrix, group_size=kind.group_size, bits=kind.bits, mode=kind.mode
    )


def unchanged(live: Live, chosen: Mapping[str, Kind]) -> Weights:
    """The quantised parts of modules that have no adapter, from memory or the files."""
    if live.is_full:
        return {}
    changed = {place.path for place in fitted.places(live.model)}
    with dense.bare(live) as model:
        flat: Any = tree_flatten(model.parameters())
        found = Weights(flat) if _loaded(model) else _files(live)
    return {
        name: found[name]
        for path in chosen
        for name in (f"{path}.{leaf}" for leaf in LEAVES)
        if path not in changed and name in found
    }


def _files(live: Live) -> Weights:
    found: Weights = {}
    for path in sorted(live.path.glob("*.safetensors")):
        held = mx.load(str(path))
        assert isinstance(held, dict)
        found |= held
    return found


def _as_table(kind: Kind) -> dict[str, Any]:
    return {"group_size": kind.group_size, "bits": kind.bits, "mode": kind.mode}


def check(
    live: Live, tensors: Weights, chosen: Mapping[str, Kind], flag: str, instead: str
) -> str:
    """What quantising costs, in one sentence.

    Args:
        live: The adapter as it works.
        tensors: The merged weights, quantised; or as they come back from that.
        chosen: How, by module; empty for whole weights.
        flag: What the user chose it with.
        instead: What to do instead.

    Raises:
        CheckFailed: If it takes away what the adapter does.
    """
    before, after, base = _divergences(live, tensors, chosen)
    told = (
        f"mean divergence from the live adapter: {before:.2g} nats per token merged, "
        f"{after:.2g} quantised again, {base:.2g} without the adapter"
    )
    if not outlives(after / base if base > 0 else None):
        raise CheckFailed(
            f"Quantising the merged weights takes the adapter away; {told}.",
            where=flag,
            hint=f"At most {MOST_SHARE:.0%} of the last is accepted. {instead}, or "
            "write the adapter alone with --to mlx.",
        )
    return told


def outlives(lost: float | None) -> bool:
    """Whether an adapter that lost this share of its effect is still there.

    None stands for an adapter that changes nothing.
    """
    return lost is None or lost <= MOST_SHARE


def _divergences(
    live: Live, tensors: Weights, chosen: Mapping[str, Kind]
) -> tuple[float, float, float]:
    """How far from the live model is it merged, quantised, and without its adapter?"""
    merged = _merged(live)
    if machine.backend() == "cpu":  # which multiplies by quantised weights slowly
        tensors, chosen = _whole(tensors, chosen), {}
    quantised = _built(live.model, tensors, chosen)
    gaps: list[NDArray[np.float64]] = []
    for row in prompts.rows(live.tokenizer):
        wanted = dense.log_probs(live.model, row)
        others = [dense.log_probs(model, row) for model in (merged, quantised)]
        with without(live) as model:
            others.append(dense.log_probs(model, row))
        gaps.append(np.stack([divergence(wanted, other) for other in others]))
    before, after, base = np.concatenate(gaps, axis=1).mean(axis=1)
    return float(before), float(after), float(base)


def _whole(tensors: Weights, chosen: Mapping[str, Kind]) -> Weights:
    """The numbers that quantised weights stand for."""
    found = dict(tensors)
    for path, kind in chosen.items():
        packed, scales = (found.pop(f"{path}.{leaf}") for leaf in LEAVES[:2])
        biases = found.pop(f"{path}.biases", None)
        found[f"{path}.weight"] = mx.dequantize(
            packed,
            scales,
            biases,
            group_size=kind.group_size,
            bits=kind.bits,
            mode=kind.mode,
        )
    return found


def divergence(
    wanted: NDArray[np.float32], found: NDArray[np.float32]
) -> NDArray[np.float64]:
    """KL(wanted || found) at each place of log-probabilities ``[places, V]``, nats."""
    return (np.exp(wanted) * (wanted - found)).sum(axis=-1, dtype=np.float64)


@contextmanager
def without(live: Live) -> Generator[nn.Module]:
    """The base model; trained weights are read anew, for nothing else remembers them."""
    if live.is_full:
        yield load.load(ModelSettings(source=str(live.path))).model
    else:
        with dense.bare(live) as model:
            yield model


def _merged(live: Live) -> nn.Module:
    """The model with whole merged weights where the adapter sits, the rest as it is."""
    places = {place.path: place for place in fitted.places(live.model)}
    with dense.bare(live) as model:
        flat: Any = tree_flatten(model.parameters())
        found = Weights(flat)
        others = {p: kind for p, kind in _loaded(model).items() if p not in places}
    for path, place in places.items():
        for leaf in ("scales", "biases"):
            found.pop(f"{path}.{leaf}", None)
        found[f"{path}.weight"] = merging.merged(place)
    return _built(live.model, found, others)


def _built(model: Any, tensors: Weights, quantised: Mapping[str, Kind]) -> nn.Module:
    """Another model of the same class, with these weights; shares what is the same."""
    fresh: Any = type(model)(model.args)
    for name in [name for name in fresh if name not in model]:
        fresh.pop(name)  # as mlx-lm drops the head where the file has none
    if hasattr(model, "tie_word_embeddings"):
        fresh.tie_word_embeddings = model.tie_word_embeddings

    def choose(path: str, module: nn.Module) -> bool | dict[str, Any]:
        del module
        return _as_table(quantised[path]) if path in quantised else False

    nn.quantize(fresh, class_predicate=choose)
    fresh.load_weights(list(tensors.items()))
    fresh.eval()
    return fresh
