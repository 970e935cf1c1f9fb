"""What of a model's folder is refused before anything believes it.

Who hands a model on may have damaged it, or mean harm: it may bring code, ask for more
memory than there is, or hold other weights than it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.errors import ModelError, RsftError, raise_together
from mlx_rsft.models import tensor_file
from mlx_rsft.settings import ModelSettings

MOST = {
    "num_hidden_layers": 10_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "hidden_size": 10_000_000,
    "intermediate_size": 100_000_000,
    "vocab_size": 100_000_000,
}
"""More than any model has by far."""

UNFIT = (
    ValueError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
"""What files that make no sense end in, inside of libraries."""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model folder; ModelError if it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        config, reason = None, str(problem)
    else:
        reason = "it is no JSON object"
    if not isinstance(config, dict):
        raise ModelError(
            f"The model folder has no readable config.json ({reason}).",
            where=str(folder),
        )
    return config


def check_trust(
    folder: Path, config: Mapping[str, Any], settings: ModelSettings
) -> None:
    """Refuse code that comes with a model, unless it is trusted."""
    code = config.get("model_file")
    if code and not settings.trust_remote_code:
        raise ModelError(
            f"The model brings Python code of its own ({code}), which is not run.",
            where=str(folder),
            hint="If you trust its author, pass --trust-remote-code.",
        )


def check_sizes(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse sizes that no model has, before as many layers are made of them."""
    inner: Any = config.get("text_config")
    for table in (config, inner if isinstance(inner, dict) else {}):
        for name, most in MOST.items():
            size = table.get(name)
            if isinstance(size, int) and not 0 <= size <= most:
                raise ModelError(
                    f"config.json says that {name} is {size}; at most {most} makes sense.",
                    where=str(folder),
                )


def check_files(folder: Path) -> None:
    """Refuse weight files that are not whole, or whose headers contradict them."""
    for path in sorted(folder.glob("model*.safetensors")):
        tensor_file.entries(path)


def check_kinds(folder: Path, model: nn.Module) -> None:
    """Refuse whole numbers where a layer multiplies by fractions."""
    problems: list[RsftError] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue  # others, quantised ones among them, hold what they are made for
        kind = module["weight"].dtype
        if not mx.issubdtype(kind, mx.floating):
            said = f"{path}.weight holds {kind}, no fractions."
            problems.append(ModelError(said, where=str(folder)))
    raise_together(problems)
