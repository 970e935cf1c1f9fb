"""Every setting by its full name, ``table.key``, as files and flags write it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_type_hints

from mlx_rsft import settings
from mlx_rsft.settings import Config

TABLES: dict[str, type] = {
    "model": settings.ModelSettings,
    "data": settings.DataSettings,
    "adapter": settings.AdapterSettings,
    "optimizer": settings.OptimizerSettings,
    "training": settings.TrainingSettings,
    "evaluation": settings.EvaluationSettings,
}
OPEN_TABLE = "objective"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its full name, its Python type, and its field."""

    name: str
    type: type
    field: dataclasses.Field[Any]

    @property
    def about(self) -> str:
        return str(self.field.metadata["about"])


def _keys() -> dict[str, Key]:
    found: dict[str, Key] = {}
    for table, holder in [("", Config), *TABLES.items()]:
        hints = get_type_hints(holder)
        for item in dataclasses.fields(holder):
            if "about" in item.metadata:
                name = f"{table}.{item.name}".lstrip(".")
                found[name] = Key(name, hints[item.name], item)
    return found


KEYS: dict[str, Key] = _keys()


def read(config: Config, name: str) -> object:
    """The value of the setting with full name ``table.key``."""
    holder: object = config
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder
