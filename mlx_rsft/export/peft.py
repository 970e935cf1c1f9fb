"""An adapter for PEFT, transformers, vLLM, SGLang and TGI: what all of them read alike.

One rank, one whole alpha and no patterns: vLLM drops ``rank_pattern`` and
``alpha_pattern`` without a word, and a Go or C++ reader of the alpha wants an integer.
A smaller rank is padded with zeros, another scale is multiplied into the B factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rsft import files
from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.export.live import Factors, Floats, Live, factors
from mlx_rsft.export.mlx_adapter import refuse_full
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import families
from mlx_rsft.models.families import FAMILIES, Family

PREFIX = "base_model.model."
MERGED = "Pass --to fused, which writes the whole model."
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's ``--max-lora-rank`` may be; 16 unless it is given."""


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` for PEFT.

    Raises:
        ConfigError: With every module that PEFT has no like of.
    """
    del choices
    refuse(live)
    found = list(factors(live.model))
    rank = max(one.rank for one in found)
    alpha, folded = common_alpha(found, rank)
    tensors = {k: v for one in found for k, v in _tensors(one, rank, folded).items()}
    mx.save_safetensors(
        str(folder / "adapter_model.safetensors"),
        {name: mx.array(value) for name, value in tensors.items()},
        metadata={"format": "pt"},
    )
    paths = [one.path for one in found]
    config = _config(live, paths, rank, alpha)
    files.write_json(folder / "adapter_config.json", config)
    return Product("peft", folder, tuple(_notes(live, rank, folded)))


def refuse(live: Live) -> None:
    """Raise ConfigError, with every reason, if PEFT has no like of the adapter."""
    refuse_full(live, "peft")
    _check(live, list(factors(live.model)))


def common_alpha(found: Sequence[Factors], rank: int) -> tuple[int, bool]:
    """One whole alpha for all, and whether the scales go into the B factors instead."""
    scales = {one.scale for one in found}
    alpha = round(found[0].scale * rank)
    whole = abs(alpha - found[0].scale * rank) < 1e-9 * rank
    if len(scales) == 1 and whole and alpha > 0:
        return alpha, False
    return rank, True


def _tensors(one: Factors, rank: int, folded: bool) -> dict[str, Floats]:
    stem = PREFIX + one.path
    kinds = ("lora_embedding_A", "lora_embedding_B")
    names = kinds if one.is_embedding else ("lora_A.weight", "lora_B.weight")
    b = one.b.T * np.float32(one.scale if folded else 1)
    tensors = {
        f"{stem}.{names[0]}": _padded(one.a.T, (rank, len(one.a))),
        f"{stem}.{names[1]}": _padded(b, (len(b), rank)),
    }
    if one.magnitude is not None:
        tensors[f"{stem}.lora_magnitude_vector"] = one.magnitude
    return tensors


def _padded(matrix: Floats, shape: tuple[int, int]) -> Floats:
    result = np.zeros(shape, np.float32)
    result[: matrix.shape[0], : matrix.shape[1]] = matrix
    return result


def _config(
    live: Live, paths: Sequence[str], rank: int, alpha: int
) -> Mapping[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": live.base_name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({path.rpartition(".")[2] for path in paths}),
        **_layers(live, paths),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": live.is_dora,
        "use_rslora": False,
    }


def _layers(live: Live, paths: Sequence[str]) -> dict[str, Any]:
    """Which blocks; PEFT takes nothing outside of blocks when some are named."""
    inside = [families.block_module(path) for path in paths]
    numbers = sorted({place[0] for place in inside if place})
    every = len(numbers) == len(getattr(live.model, "layers", ()))
    if every or None in inside:
        return {"layers_to_transform": None, "layers_pattern": None}
    return {"layers_to_transform": numbers, "layers_pattern": "layers"}


def family_of(live: Live, target: str) -> Family:
    """The names of this model's modules.

    Raises:
        ConfigError: If they are not known.
    """
    if live.model_type not in FAMILIES:
        raise ConfigError(
            f"What {target} calls the modules of a {live.model_type} model is not known.",
            where="--to",
            hint=f"Known: {', '.join(FAMILIES)}. {MERGED}",
        )
    return FAMILIES[live.model_type]


def _check(live: Live, found: Sequence[Factors]) -> None:
    family = family_of(live, "PEFT")
    problems: list[RsftError] = []
    for one in found:
        if not families.known(family, one.path):
            reason = f"has no like in PEFT's {live.model_type} model"
        elif one.is_embedding and one.magnitude is not None:
            reason = "is an embedding, whose DoRA PEFT computes otherwise"
        elif one.is_embedding and not hasattr(live.model, "lm_head"):
            reason = "is the head too here, but not in PEFT"
        else:
            continue
        problems.append(
            ConfigError(f"{one.path} {reason}.", where="--to peft", hint=MERGED)
        )
    raise_together(problems)


def _notes(live: Live, rank: int, folded: bool) -> list[str]:
    notes: list[str] = []
    if folded:
        notes.append(
            "the scale is no whole alpha over the rank; it is in the B factors"
        )
    if live.is_dora:
        notes.append("vLLM, SGLang and TGI load no DoRA; PEFT does")
    elif rank > VLLM_RANKS[-1]:
        notes.append(f"vLLM loads ranks up to {VLLM_RANKS[-1]}; this one is {rank}")
    elif rank > 16:
        step = next(step for step in VLLM_RANKS if step >= rank)
        notes.append(f"vLLM needs --max-lora-rank {step}")
    return notes
