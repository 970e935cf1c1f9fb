"""What a GGUF file says about one whole model, or why it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mlx_rsft.errors import ModelError
from mlx_rsft.models import gguf_container
from mlx_rsft.models.gguf_container import Tensor

T = TypeVar("T", bool, int, float, str, list[Any])

ELSEWHERE = "Use the model's folder in the Hugging Face or MLX format instead."


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An opened file: metadata by key, tensors by name; their bytes stay on disk.

    ``kinds`` has the value type of each key, of a list also that of its entries.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    kinds: Mapping[str, tuple[int, ...]]

    def need(self, key: str, kind: type[T]) -> T:
        """The metadata value at ``key``, which must be there and be a ``kind``."""
        if key not in self.metadata:
            self.refuse(f"the metadata key {key!r} is missing.")
        value: Any = self.metadata[key]
        if not isinstance(value, kind):
            found, expected = type(value).__name__, kind.__name__
            self.refuse(f"{key!r} is of type {found}, not {expected}.")
        return value

    def get(self, key: str, default: T) -> T:
        """The metadata value at ``key``, of the default's type; else the default."""
        return self.need(key, type(default)) if key in self.metadata else default

    def size(self, key: str, default: int | None = None) -> int:
        """The number at ``key``, at least 1; it must be there without a default."""
        value = self.need(key, int) if default is None else self.get(key, default)
        if value < 1:
            self.refuse(f"{key!r} is {value}.")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """The finite number above 0 at ``key``; it must be there without a default."""
        value = self.need(key, float) if default is None else self.get(key, default)
        if not 0 < value < math.inf:
            self.refuse(f"{key!r} is {value}.")
        return value

    def refuse(self, message: str, *, hint: str = "") -> NoReturn:
        """Raise the error that says why this file cannot be used."""
        raise ModelError(message, where=str(self.path), hint=hint)


def read(path: Path) -> GgufFile:
    """Open a file that holds one whole model.

    Raises:
        ModelError: If there is no such file; if it is not GGUF, cut short or damaged;
            if it is an adapter, one part of several, or made for big-endian machines.
    """
    file = GgufFile(path, *gguf_container.read(path))
    kind = file.get("general.type", "model")
    if kind != "model":
        file.refuse(
            f"this GGUF file is of type {kind!r}; a 'model' is needed.",
            hint="Give the base model's own file.",
        )
    parts = file.get("split.count", 1)
    if parts > 1:
        file.refuse(
            f"this GGUF file is one of {parts} parts.",
            hint="Join them first: llama-gguf-split --merge FIRST_PART OUT.gguf.",
        )
    return file
