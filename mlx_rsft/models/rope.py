"""Position settings where mlx-lm looks for them.

transformers 5 writes RoPE's base, its scaling and the share of a head that turns into
``rope_parameters`` alone. Most of mlx-lm's models read the older places beside it and
take their class's defaults without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Table = dict[str, Any]
GEMMA = ("gemma3", "gemma3_text")
"""Models whose blocks turn in two ways, which mlx-lm reads under two names."""
LIFTED = ("rope_theta", "partial_rotary_factor")


def corrections(config: Mapping[str, Any]) -> Table:
    """What a configuration lacks at the places that mlx-lm reads; empty if nothing.

    Args:
        config: ``config.json``; the text model's part of it, ``text_config``, comes back
            whole where it has to change.
    """
    found = _lifted(config)
    inner = config.get("text_config")
    if isinstance(inner, dict) and (missing := _lifted(inner)):
        found["text_config"] = {**inner, **missing}
    return found


def _lifted(config: Mapping[str, Any]) -> Table:
    given = config.get("rope_parameters")
    if not isinstance(given, dict) or _reads_them(config.get("model_type")):
        return {}
    found: Table = {}
    if config.get("model_type") in GEMMA:
        local = given.get("sliding_attention")
        given = given.get("full_attention", given)
        if isinstance(local, dict) and "rope_theta" in local:
            found["rope_local_base_freq"] = local["rope_theta"]
    if not isinstance(given, dict):
        return {}
    found |= {key: given[key] for key in LIFTED if given.get(key) is not None}
    if given.get("rope_type", "default") != "default":
        found["rope_scaling"] = {k: v for k, v in given.items() if k not in LIFTED}
    return {key: value for key, value in found.items() if config.get(key) is None}


def module(kind: object) -> Path | None:
    """Where mlx-lm has the model of a type, if it has one."""
    from mlx_lm.utils import MODEL_REMAPPING

    name = MODEL_REMAPPING.get(str(kind), str(kind))
    found = find_spec(f"mlx_lm.models.{name}") if name.isidentifier() else None
    return Path(found.origin) if found and found.origin else None


def _reads_them(kind: object) -> bool:
    """Whether mlx-lm's model reads ``rope_parameters`` itself."""
    path = module(kind) if kind else None
    return path is not None and "rope_parameters" in path.read_text(encoding="utf-8")


def spelled(corrected: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The corrections in words, such as ``rope_theta 500000``."""
    flat = {key: value for key, value in corrected.items() if key != "text_config"}
    inner, before = corrected.get("text_config", {}), config.get("text_config", {})
    flat |= {key: value for key, value in inner.items() if key not in before}
    return ", ".join(f"{key} {value}" for key, value in flat.items())
