"""What a GGUF file holds, or why it cannot be used.

The ``gguf`` package reads the container and knows every block type. This module adds
the refusals, and re-expresses the blocks that MLX can hold without loss: a group of 32
integers with one scale and one bias.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlx_rsft.errors import ModelError

if TYPE_CHECKING:
    from gguf.gguf_reader import GGUFReader, ReaderField, ReaderTensor

T = TypeVar("T", bool, int, float, str, list[Any])
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

MAGIC = b"GGUF"
GROUP = 32
ELSEWHERE = "Use the model's folder in the Hugging Face or MLX format instead."


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An opened file: metadata by key, tensors by name; the data stay on disk."""

    path: Path
    fields: Mapping[str, ReaderField]
    tensors: Mapping[str, ReaderTensor]

    def need(self, key: str, kind: type[T]) -> T:
        """The metadata value at ``key``, which must be there and be a ``kind``."""
        if key not in self.fields:
            self.refuse(f"the metadata key {key!r} is missing.")
        try:
            value: Any = self.fields[key].contents()
        except UnicodeDecodeError as problem:
            self.refuse(f"{key!r} is not UTF-8 text ({problem}).")
        if not isinstance(value, kind):
            found, expected = type(value).__name__, kind.__name__
            self.refuse(f"{key!r} is of type {found}, not {expected}.")
        return value

    def get(self, key: str, default: T) -> T:
        """The metadata value at ``key``, of the default's type; else the default."""
        return self.need(key, type(default)) if key in self.fields else default

    def size(self, key: str) -> int:
        """The number at ``key``, which must be there and be at least 1."""
        value = self.need(key, int)
        if value < 1:
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
    check_magic(path)
    try:
        reader = _open(path)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as problem:
        raise ModelError(
            f"this GGUF file is cut short or damaged ({problem}).",
            where=str(path),
            hint="Download it again and compare its size or checksum.",
        ) from problem
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    file = GgufFile(path, reader.fields, tensors)
    if reader.byte_order == "S":
        file.refuse("this GGUF file is for big-endian machines.")
    _check_whole_model(file)
    return file


def _open(path: Path) -> GGUFReader:
    import gguf

    class PlainReader(gguf.GGUFReader):
        """Cuts a plain array: cutting numpy's memmap costs three times as much.

        A vocabulary of 262,144 tokens is a million cuts, 11 seconds.
        """

        def __setattr__(self, name: str, value: object) -> None:
            plain = value.view(np.ndarray) if isinstance(value, np.memmap) else value
            super().__setattr__(name, plain)

    return PlainReader(path)


def check_magic(path: Path) -> None:
    """Raise a ModelError unless there is a file that starts as GGUF files do."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as problem:
        message = f"this file cannot be read ({problem.strerror})."
        raise ModelError(message, where=str(path)) from problem
    if start != MAGIC:
        raise ModelError(
            f"not a GGUF file: it starts with {start!r}, not {MAGIC!r}.",
            where=str(path),
        )


def _check_whole_model(file: GgufFile) -> None:
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


class Affine(NamedTuple):
    """Rows of ``bits``-bit integers, 32 to a group: value = scale * integer + bias.

    ``packed`` is uint32 (rows, width * bits / 32), lowest bits first, as MLX packs it;
    ``scales`` and ``biases`` are float32 (rows, width / 32).
    """

    packed: NDArray[np.uint32]
    scales: Floats
    biases: Floats
    bits: int


def as_affine(rows: Bytes, kind: str) -> Affine:
    """Stored rows (uint8) of a block type in ``AFFINE``, without loss."""
    block_bytes, unpack = AFFINE[kind]
    return unpack(rows.reshape(len(rows), -1, block_bytes))


def as_floats(rows: NDArray[Any], kind: str) -> Floats:
    """Stored rows of any block type the ``gguf`` package can read, as float32."""
    import gguf

    try:
        return gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])
    except NotImplementedError as problem:
        raise ModelError(f"block type {kind} cannot be read ({problem}).") from problem


def _halves(blocks: Bytes, at: int) -> Floats:
    """The float16 numbers at byte ``at`` of every block."""
    pair = np.ascontiguousarray(blocks[..., at : at + 2])
    return pair.view("<f2")[..., 0].astype(np.float32)


def _words(integers: Bytes) -> NDArray[np.uint32]:
    """Bytes (rows, groups, n) as the little-endian words MLX reads."""
    return np.ascontiguousarray(integers.reshape(len(integers), -1)).view("<u4")


def _nibbles(stored: Bytes) -> NDArray[np.uint32]:
    """Sixteen bytes hold integers 0-15 low and 16-31 high; MLX wants neighbours."""
    four = np.uint8(4)
    in_order = np.concatenate([stored << four >> four, stored >> four], axis=-1)
    return _words(in_order[..., 0::2] | in_order[..., 1::2] << four)


def _q4_0(blocks: Bytes) -> Affine:
    scales = _halves(blocks, 0)
    return Affine(_nibbles(blocks[..., 2:]), scales, -8 * scales, 4)


def _q4_1(blocks: Bytes) -> Affine:
    return Affine(_nibbles(blocks[..., 4:]), _halves(blocks, 0), _halves(blocks, 2), 4)


def _q8_0(blocks: Bytes) -> Affine:
    scales = _halves(blocks, 0)
    unsigned = blocks[..., 2:] ^ np.uint8(0x80)
    return Affine(_words(unsigned), scales, -128 * scales, 8)


AFFINE: dict[str, tuple[int, Callable[[Bytes], Affine]]] = {
    # block type: (bytes per block of 32, how to read it)
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
}
