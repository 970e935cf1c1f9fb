"""The frozen-trunk cache: blocks below the first trained one are run once per row.

They never change, so their output for a row is a function of the row's tokens. It is
reused in every epoch, every arm of a comparison and every evaluation. Each row is run
alone and without padding, so its states are the same bits whichever batch asks first,
and a resumed run goes on as one that was never stopped.
Shapes: B rows, T positions, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import mlx.core as mx
import numpy as np

from mlx_rsft import lanes
from mlx_rsft.errors import ModelError
from mlx_rsft.lanes import Job
from mlx_rsft.models import seam
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel, without_dropout
from mlx_rsft.models.trunk_store import Lines, Store

FORMAT = "1"
"""Changes when stored states would no longer be read right."""


@dataclass(frozen=True, slots=True)
class TrunkStats:
    """What a trunk has done so far.

    Attributes:
        hits: Rows that were found.
        misses: Rows that were computed.
        left_out: Those of them that found no room, and are computed each time.
        num_bytes: What the store holds.
    """

    hits: int
    misses: int
    left_out: int
    num_bytes: int

    def as_record(self) -> dict[str, int]:
        return asdict(self)


class Trunk:
    """The states of the frozen blocks of one model, computed or found.

    Args:
        split: The model; its first ``depth`` blocks must not change from here on.
        depth: Blocks below the first trained one, at least 1.
        store: Where the states are kept; may be shared with trunks of other models.
        model_hash: What identifies the weights as they are computed with, where the
            store outlives this process or is shared.
    """

    def __init__(
        self, split: SplitModel, depth: int, store: Store, model_hash: str = ""
    ) -> None:
        self.depth = depth
        self._split = split
        self._store = store
        # Type and width are known without computing anything.
        sample = split.trunk(mx.zeros((1, 1), mx.int32), depth).values_BTD
        self._dtype = sample.dtype
        self._token_bytes = sample.shape[-1] * sample.dtype.size
        self._identity = repr(
            (
                FORMAT,
                model_hash,
                depth,
                str(sample.dtype),
                sample.shape[-1],
                version("mlx"),
                str(mx.default_device()),
            )
        )
        self._hits = self._misses = self._left_out = 0
        self._asked: set[bytes] = set()

    @property
    def stats(self) -> TrunkStats:
        return TrunkStats(
            self._hits, self._misses, self._left_out, self._store.num_bytes
        )

    def close(self) -> None:
        """Finish what the store is writing; nothing is kept after that."""
        self._store.close()

    def states(self, rows: Sequence[Sequence[int]], width: int) -> TrunkStates:
        """States of rows of tokens, zero where they are padded to ``width``.

        To be called outside of what is differentiated or compiled: its result is a
        constant.
        """
        lines_BT = np.zeros((len(rows), width, self._token_bytes), np.uint8)
        for place, lines in enumerate(self._found(rows)):
            lines_BT[place, : len(lines)] = lines
        return TrunkStates(self.depth, mx.array(lines_BT).view(self._dtype))

    def was_asked(self, tokens: Sequence[int]) -> bool:
        """Whether a row's states were asked for, so that asking early gains nothing."""
        return self._key(np.array(tokens, np.int32)) in self._asked

    def _found(self, rows: Sequence[Sequence[int]]) -> list[Lines]:
        """What is kept of each row; what is not is computed, a row on each core."""
        ids = [np.array(tokens, np.int32) for tokens in rows]
        keys = [self._key(row) for row in ids]
        self._asked.update(keys)
        kept = {key: self._store.get(key) for key in keys}
        found = {key: lines for key, lines in kept.items() if lines is not None}
        missing = {
            key: row for key, row in zip(keys, ids, strict=True) if key not in found
        }
        self._hits += len(rows) - len(missing)
        self._misses += len(missing)
        at_once = lanes.count()
        for begin in range(0, len(missing), at_once):
            some = list(missing)[begin : begin + at_once]
            with without_dropout(self._split.model):
                jobs = [self._computed(missing[key]) for key in some]
                made = lanes.together(jobs, cores=at_once)
            for key, lines in zip(some, made, strict=True):
                found[key] = lines
                self._left_out += not self._store.put(key, lines)
        return [found[key] for key in keys]

    def _key(self, ids: np.ndarray) -> bytes:
        digest = hashlib.blake2b(self._identity.encode(), digest_size=16)
        digest.update(ids.tobytes())
        return digest.digest()

    def _computed(self, ids: np.ndarray) -> Job[Lines]:
        def forward() -> mx.array:
            return self._split.trunk(mx.array(ids)[None], self.depth).values_BTD

        states_BTD = yield from seam.by_block(forward)
        # As bytes, because numpy has no bfloat16.
        return np.array(states_BTD[0].view(mx.uint8))


PROBE_ROWS = 3
PROBE_LENGTH = 24
PROBE_REAL = 15
"""Tokens of the first probe row; the others are padding."""


def why_not(split: SplitModel, depth: int) -> str:
    """Why a model cannot run on kept states, empty if it can; tried on a probe batch.

    Bits are compared, in batches of one shape, so no tolerance hides a difference.
    """
    with without_dropout(split.model):
        try:
            return _difference(split, depth)
        except (
            ModelError,
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            RuntimeError,
        ) as problem:
            return f"its blocks cannot be run apart ({problem})"


def _difference(split: SplitModel, depth: int) -> str:
    shape = (PROBE_ROWS, PROBE_LENGTH)
    tokens_BT = mx.arange(PROBE_ROWS * PROBE_LENGTH).reshape(shape) * 7 % 97
    real = slice(0, PROBE_REAL)
    plain_BTD = split.hidden(tokens_BT)
    trunk = split.trunk(tokens_BT, depth)
    if not _same(split.hidden(tokens_BT, trunk), plain_BTD):
        return "its upper blocks need more than the output of the lower ones"
    changed_BT = mx.array(tokens_BT)
    changed_BT[0, PROBE_REAL:] = 0
    changed_BT[1:] = 0
    other = split.trunk(changed_BT, depth).values_BTD
    if not _same(other[0, real], trunk.values_BTD[0, real]):
        return "its lower blocks let padding or other rows into a row"
    padded_BTD = mx.array(trunk.values_BTD)
    padded_BTD[0, PROBE_REAL:] = 0
    onto_zeros = split.hidden(tokens_BT, TrunkStates(depth, padded_BTD))
    if not _same(onto_zeros[0, real], plain_BTD[0, real]):
        return "its upper blocks let padding into a row"
    return ""


def _same(one: mx.array, other: mx.array) -> bool:
    return bool(mx.array_equal(one, other).item())
