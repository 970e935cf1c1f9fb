"""A whole model where LM Studio looks for it: ``models/PUBLISHER/MODEL``.

It is the MLX model and no GGUF file: LM Studio on a Mac runs both, loads no adapters, and
this one keeps the base model's own type, tokenizer and chat template as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlx_rsft.export import fused
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product

PUBLISHER = "mlx-rsft"
SUFFIX = "-tuned"


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write ``PUBLISHER/MODEL/`` with everything in it; raises as ``fused``."""
    inner = folder / PUBLISHER / (live.base_name.rpartition("/")[2] + SUFFIX)
    inner.mkdir(parents=True)
    made = fused.write(live, inner, choices)
    place = "copy PUBLISHER/MODEL into ~/.lmstudio/models; LM Studio was not run here"
    return replace(made, target="lmstudio", notes=(*made.notes, place))
