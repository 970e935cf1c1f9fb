"""The block types of GGUF files: those MLX holds without loss, and all others.

MLX's affine form is a group of 32 integers with one scale and one bias; its ``mxfp4`` a
group of 32 four-bit floats with one power of two. The ``gguf`` package knows every type
and turns what is neither into floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

GROUP = 32


class Layout(NamedTuple):
    """How MLX is to read a layer's packed weights."""

    bits: int
    mode: str

    def as_config(self) -> dict[str, Any]:
        """The layout in the words of ``config.json``."""
        mode = {} if self.mode == "affine" else {"mode": self.mode}
        return {"group_size": GROUP, "bits": self.bits, **mode}


class Kept(NamedTuple):
    """Rows as one of MLX's quantised layers holds them, without loss.

    ``parts`` has ``weight``, uint32 (rows, width * bits / 32), lowest bits first, and
    (rows, width / 32) of the others: float32 ``scales`` and ``biases`` where the mode
    is affine, uint8 ``scales`` where it is ``mxfp4``.
    """

    layout: Layout
    parts: dict[str, NDArray[Any]]

    def largest(self) -> float:
        """What no value of an ``mxfp4`` layer exceeds; 0 of an affine one."""
        if self.layout != MXFP4:
            return 0.0
        return LARGEST_E2M1 * 2.0 ** (int(self.parts["scales"].max()) - EXPONENT_BIAS)


AFFINE_4, AFFINE_8 = Layout(4, "affine"), Layout(8, "affine")
MXFP4 = Layout(4, "mxfp4")
LARGEST_E2M1 = 6.0
EXPONENT_BIAS = 127


def kept(rows: Bytes, kind: str) -> Kept:
    """Stored rows of a block type in ``KEPT``."""
    block_bytes, unpack = KEPT[kind]
    return unpack(rows.reshape(len(rows), -1, block_bytes))


def as_floats(rows: Bytes, kind: str) -> Floats:
    """Stored rows of any block type, as float32.

    Raises:
        NotImplementedError: If the ``gguf`` package cannot read that type.
    """
    import gguf

    return gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])


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


def _affine(
    layout: Layout, weight: NDArray[np.uint32], scales: Floats, biases: Floats
) -> Kept:
    return Kept(layout, {"weight": weight, "scales": scales, "biases": biases})


def _q4_0(blocks: Bytes) -> Kept:
    scales = _halves(blocks, 0)
    return _affine(AFFINE_4, _nibbles(blocks[..., 2:]), scales, -8 * scales)


def _q4_1(blocks: Bytes) -> Kept:
    scales, biases = _halves(blocks, 0), _halves(blocks, 2)
    return _affine(AFFINE_4, _nibbles(blocks[..., 4:]), scales, biases)


def _q8_0(blocks: Bytes) -> Kept:
    scales = _halves(blocks, 0)
    unsigned = blocks[..., 2:] ^ np.uint8(0x80)
    return _affine(AFFINE_8, _words(unsigned), scales, -128 * scales)


def _mxfp4(blocks: Bytes) -> Kept:
    scales = np.ascontiguousarray(blocks[..., 0])
    return Kept(MXFP4, {"weight": _nibbles(blocks[..., 1:]), "scales": scales})


KEPT: dict[str, tuple[int, Callable[[Bytes], Kept]]] = {
    # block type: (bytes per block of 32, how to read it)
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
    "MXFP4": (17, _mxfp4),
}
