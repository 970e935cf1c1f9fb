"""What an exporter takes, makes, and is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlx_rsft.export.live import Factors, Live


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user may choose about the files.

    Attributes:
        gguf_type: Type of the tensors of a GGUF adapter.
        dora_as_lora: Rank of the LoRA that stands for a DoRA in a GGUF adapter; 0: a
            DoRA is refused there.
        base_name: What the files call the base model; empty: its own name.
    """

    gguf_type: str = "f32"
    dora_as_lora: int = 0
    base_name: str = ""
    merged_type: str = "f16"
    requantize: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """What was written.

    Attributes:
        target: The key in ``EXPORTERS``.
        path: The file or folder that a reader is given.
        notes: What is to be known of it, in plain sentences.
        meant: The factors that it holds instead of the live ones, where the user chose
            a loss; its readers are then compared with these.
    """

    target: str
    path: Path
    notes: tuple[str, ...] = ()
    meant: tuple[Factors, ...] = ()


class Exporter(NamedTuple):
    """A kind of files that others read.

    Attributes:
        summary: What it is, in a few words.
        write: Writes it into a folder that is there and empty; refuses by name, with a
            ConfigError, what the format cannot hold.
        readers: Keys of ``READERS``: who reads it back, to compare with the live model.
    """

    summary: str
    write: Callable[[Live, Path, Choices], Product]
    readers: tuple[str, ...]
