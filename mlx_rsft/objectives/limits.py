"""Parameters of objectives, held to their ranges."""

from __future__ import annotations

import math

from mlx_rsft.errors import ConfigError


def at_least(name: str, value: float, least: float) -> None:
    """Raise ConfigError unless ``value`` is finite and at least ``least``."""
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{name} = {value:g}: must be finite and at least {least:g}.")


def above(name: str, value: float, least: float) -> None:
    """Raise ConfigError unless ``value`` is finite and above ``least``."""
    if not (math.isfinite(value) and value > least):
        raise ConfigError(f"{name} = {value:g}: must be finite and above {least:g}.")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name} = {value:g}: must be between {low:g} and {high:g}.")
