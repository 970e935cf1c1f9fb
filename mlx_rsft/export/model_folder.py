"""The files of a model folder beside its weights: config.json, tokenizer, licence.

They are the base model's own, without what names this disk, and with the RoPE base where
each reader looks for it: mlx-lm at the top, transformers from version 5 on inside
``rope_parameters``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.models.load import TOKENIZER

Config = dict[str, Any]

BESIDE = (*TOKENIZER, "LICENSE*", "NOTICE*", "USE_POLICY*", "*.py")
OF_A_DISK = ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file")
"""Keys whose values may be paths of the machine that wrote them."""
OF_ROUNDING = ("quantization", "quantization_config")
WEIGHTS = "model.safetensors"


def read(folder: Path) -> Config:
    """The ``config.json`` of a model that has been loaded from there."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def config(base: Mapping[str, Any], dtype: str, rounding: Mapping[str, Any]) -> Config:
    """What the merged model's ``config.json`` holds.

    Args:
        base: The base model's.
        dtype: Type of the weights, or of their scales.
        rounding: The table ``quantization``; empty where nothing is quantised.
    """
    dropped = (*OF_ROUNDING, *OF_A_DISK, "vision_config", "dtype")
    kept = {key: value for key, value in base.items() if key not in dropped}
    tables = {key: dict(rounding) for key in OF_ROUNDING} if rounding else {}
    return {**kept, **rotation(kept), "torch_dtype": dtype, **tables}


def rotation(base: Mapping[str, Any]) -> Config:
    """The RoPE base in both places; empty for a model that has none."""
    told = base.get("rope_parameters") or {}
    everywhere = told.get("full_attention", told)
    theta = base.get("rope_theta", everywhere.get("rope_theta"))
    if theta is None:
        return {}
    if told:
        return {"rope_theta": theta, "rope_parameters": told}
    rule: Config = dict(base.get("rope_scaling") or {"rope_type": "default"})
    rule["rope_type"] = rule.pop("type", rule.get("rope_type"))
    parameters: Config = {"rope_theta": theta, **rule}
    if (local := base.get("rope_local_base_freq")) is not None:
        parameters = {
            "full_attention": parameters,
            "sliding_attention": {"rope_theta": local, "rope_type": "default"},
        }
    return {"rope_theta": theta, "rope_parameters": parameters}


def copy(base: Path, folder: Path) -> None:
    """Copy what lies beside the weights; ``config.json`` is not among it."""
    found = {path for kind in BESIDE for path in base.glob(kind) if path.is_file()}
    for path in sorted(found):
        if path.name == "config.json":
            continue
        if path.suffix == ".json" and path.name != "tokenizer.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            files.write_text(folder / path.name, _as_json(_without_paths(record)))
        else:
            shutil.copyfile(path, folder / path.name)


def _without_paths(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    return {key: value for key, value in record.items() if key not in OF_A_DISK}


def _as_json(record: Any) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
