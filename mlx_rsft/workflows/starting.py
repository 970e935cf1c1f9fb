"""What a run begins with: factors drawn anew, or those of an adapter that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.errors import ConfigError, RsftError, raise_together
from mlx_rsft.models import adapters, families
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.settings import Config
from mlx_rsft.workflows import assemble

INIT = "adapter.init"
ITS_OWN = ("method", "rank", "scale", "rslora", "layers", "keys", "dropout")
"""Settings that an adapter brings with it."""


def check(resolved: Resolved) -> None:
    """Raise ConfigError for every setting that the adapter to begin from brings."""
    if not resolved.config.adapter.init:
        return
    problems: list[RsftError] = [
        ConfigError(
            f"{name} comes with the adapter that the run begins from.",
            where=f"adapter.{name}",
            hint="Leave it out, or leave --init-adapter out.",
        )
        for name in ITS_OWN
        if resolved.is_given(f"adapter.{name}")
    ]
    raise_together(problems)


def refuse(config: Config) -> None:
    """Raise ConfigError where fresh factors are the only ones."""
    if config.adapter.init:
        raise ConfigError(
            "Only mlx-rsft train begins from an adapter.",
            where=INIT,
            hint="Leave it out.",
        )


def start(loaded: LoadedModel, resolved: Resolved) -> tuple[Resolved, dict[str, Any]]:
    """Put the adapter on that is to be trained.

    Returns:
        The settings, with what the adapter brought; and its ``adapter_config.json``.

    Raises:
        ConfigError: If the adapter has no factors to go on with.
        ModelError: If it cannot be read, or is none of this model.
    """
    config = resolved.config
    if not config.adapter.init:
        return resolved, assemble.fresh_adapter(loaded, config)
    folder = Path(config.adapter.init).expanduser()
    text = adapters.load(loaded.model, folder)
    if text["fine_tune_type"] == "full":
        raise ConfigError(
            "The adapter holds whole weights, not factors to go on with.",
            where=INIT,
            hint="Export it with --to fused, and pass that as --model.",
        )
    trained: Any = loaded.model.trainable_parameters()
    loaded.model.update(tree_map(_widened, trained))
    kept = {"fine_tune_type", "num_layers", "lora_parameters"}
    own = {key: value for key, value in text.items() if key in kept}
    values = _settings(own, len(loaded.model.layers))  # pyright: ignore
    return configuration.changed(resolved, values, str(folder)), own


def record(config: Config) -> dict[str, Any]:
    """Which adapter a run began from, for the manifest; empty if from none."""
    if not config.adapter.init:
        return {}
    folder = Path(config.adapter.init).expanduser()
    held = sorted(folder.glob("adapter*.safetensors"))
    hashes = {path.name: files.sha256(path) for path in held}
    return {"init": {"source": str(folder), "sha256": hashes}}


def _widened(factor: mx.array) -> mx.array:
    """Small steps would be lost in 16 bits."""
    return factor.astype(mx.float32)


def _settings(text: dict[str, Any], num_blocks: int) -> dict[str, object]:
    """An adapter's file in the words of ``[adapter]``."""
    held = text["lora_parameters"]
    count = text["num_layers"]
    layers = f"last:{count}" if 0 < count < num_blocks else "all"
    keys: Sequence[str] = held.get("keys") or ()
    inside = [place for key in keys if (place := families.block_module(key))]
    if inside:
        numbers = [number for number, _ in inside]
        layers = f"{min(numbers)}-{max(numbers)}"
        outside = {key for key in keys if not families.block_module(key)}
        keys = sorted({name for _, name in inside} | outside)
    return {
        "adapter.method": text["fine_tune_type"],
        "adapter.rank": held["rank"],
        "adapter.scale": held["scale"],
        "adapter.dropout": held["dropout"],
        "adapter.layers": layers,
        **({"adapter.keys": tuple(keys)} if keys else {}),
    }
