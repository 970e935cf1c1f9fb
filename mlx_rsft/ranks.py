"""Processes that train one run together, each on rows of its own.

mlx connects them (``mlx.distributed``); here they are told apart by their rank. All that
goes between them is the sum over all ranks of an array that each has in the same shape. It
is waited for in a thread, so that signals are heeded meanwhile, and not for ever: a ring
tells when a peer is gone, but not when it stands still, and JACCL tells neither.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from itertools import accumulate
from typing import NoReturn

import mlx.core as mx
import numpy as np

from mlx_rsft import machine
from mlx_rsft.errors import ConfigError, MachineError, RunError

BACKENDS = ("ring", "jaccl", "mpi")
STEP_SECONDS = 600.0
"""Within so long, and ten times what a rank took itself, the others are done, too."""
ASIDE_SECONDS = 86_400.0
"""So long may one rank do what the others do not: fetch a model, look at splits, save."""
CONNECT_SECONDS = 60.0
"""Within so long all have to be there; those that call give up after 31."""
CHUNK_BYTES = 1 << 26


class RankLost(RunError):
    """Another rank is gone, or does not answer."""


class Ranks:
    """One of the processes, as it sees the others; alone, it exchanges nothing.

    Attributes:
        rank: Its number; rank 0 leads: it alone writes and speaks.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._last = time.monotonic()

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def for_rows(self, count: int) -> Ranks:
        """Those that share so many rows; each for itself if there are fewer than ranks."""
        return self if count >= self.size else ALONE

    def summed(self, arrays: Sequence[mx.array]) -> list[mx.array]:
        """The sum of each array over the ranks, in float32 on the way, in one exchange.

        Raises:
            RankLost: If another rank is gone, or takes much longer than this one.
        """
        if self.size == 1:
            return list(arrays)
        flat = mx.concatenate([one.reshape(-1).astype(mx.float32) for one in arrays])
        total = self._sum(flat, self._patience())
        ends = list(accumulate(one.size for one in arrays))[:-1]
        parts = zip(mx.split(total, ends), arrays, strict=True)
        return [part.reshape(one.shape).astype(one.dtype) for part, one in parts]

    def joined(
        self, arrays: Sequence[mx.array], counts: Sequence[int]
    ) -> list[mx.array]:
        """Whole arrays (N,), of which rank after rank has so many values.

        Raises:
            RankLost: As ``summed``.
        """
        if self.size == 1:
            return list(arrays)
        begin, own = sum(counts[: self.rank]), counts[self.rank]
        around = (begin, sum(counts) - begin - own)
        padded = [mx.pad(one.astype(mx.float32), around) for one in arrays]
        whole = zip(self.summed(padded), arrays, strict=True)
        return [one.astype(like.dtype) for one, like in whole]

    def any_of(self, *facts: bool) -> list[bool]:
        """Of each fact whether it holds on any rank, asked between two steps.

        There rank 0 has more to do than the others, and they wait for it.

        Raises:
            RankLost: As ``summed``.
        """
        if self.size == 1:
            return list(facts)
        seconds = self._patience() if self.leads else ASIDE_SECONDS
        held = self._sum(mx.array([float(fact) for fact in facts]), seconds)
        return [bool(count > 0) for count in np.array(held)]

    def told(self, said: bytes = b"", by: int = 0) -> bytes:
        """What one rank says, on all of them; waits for who is busy aside.

        Args:
            said: Its words; those of other ranks are not heard.
            by: Who speaks.

        Raises:
            RankLost: If another rank is gone.
        """
        if self.size == 1:
            return said
        own = np.frombuffer(said if self.rank == by else b"", np.uint8)
        counts = np.array(self._sum(mx.array([own.size], mx.int64), ASIDE_SECONDS))
        length = int(counts[0])
        heard: list[bytes] = []
        for begin in range(0, length, CHUNK_BYTES):
            end = min(length, begin + CHUNK_BYTES)
            part = own[begin:end] if own.size else np.zeros(end - begin, np.uint8)
            heard.append(bytes(np.array(self._sum(mx.array(part), ASIDE_SECONDS))))
        return b"".join(heard)

    def _patience(self) -> float:
        """Seconds to wait for ranks that do as much as this one has done by now."""
        return _least_patience() + 10 * (time.monotonic() - self._last)

    def _sum(self, array: mx.array, seconds: float) -> mx.array:
        mx.eval(array)  # a GPU has to be done before the CPU sends its result
        done = threading.Event()
        problems: list[RuntimeError] = []

        def wait() -> None:
            try:
                mx.eval(total)
            except RuntimeError as problem:
                problems.append(problem)
            done.set()

        try:
            total = mx.distributed.all_sum(array, stream=_stream())
            mx.async_eval(total)
        except RuntimeError as problem:
            self._lost(str(problem))
        threading.Thread(target=wait, daemon=True).start()
        if not done.wait(seconds):
            self._lost(f"it has not answered for {seconds:.0f} seconds")
        if problems:
            self._lost(str(problems[0]))
        self._last = time.monotonic()
        return total

    def _lost(self, reason: str) -> NoReturn:
        who = f"Rank {1 - self.rank}" if self.size == 2 else "Another rank"
        raise RankLost(f"{who} is lost: {reason}.", hint="See what it says.")


ALONE = Ranks()


@functools.cache
def here() -> Ranks:
    """This process among those that it was launched with.

    Raises:
        MachineError: If they do not find each other.
    """
    backend = machine.launched_by()
    if not backend:
        return ALONE
    _least_patience()  # says now if it is no number
    if backend not in BACKENDS:
        raise MachineError(
            f"Ranks are not connected by {backend} here.",
            hint=f"Launch with --backend {BACKENDS[0]}.",
        )
    try:
        with _woken_after(CONNECT_SECONDS):
            group = mx.distributed.init(strict=True, backend=backend)
    except (RuntimeError, ValueError) as problem:
        raise MachineError(
            f"The ranks do not find each other ({problem}).",
            where=backend,
            hint="See that all were launched, and that their addresses are right.",
        ) from None
    return Ranks(group.rank(), group.size())


@contextlib.contextmanager
def _woken_after(seconds: float) -> Generator[None]:
    """Let a signal end a wait that holds the interpreter: mlx takes it for a failure."""

    def wake(number: int, frame: object) -> None:
        del number, frame

    before = signal.signal(signal.SIGALRM, wake)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def _least_patience() -> float:
    said = os.environ.get("MLX_RSFT_PATIENCE", str(STEP_SECONDS))
    try:
        return float(said)
    except ValueError:
        raise ConfigError(
            f"{said!r} is no number of seconds.",
            where="MLX_RSFT_PATIENCE",
            hint=f"Leave it out for {STEP_SECONDS:.0f}.",
        ) from None


@functools.cache
def _stream() -> mx.Stream:
    """One of its own, so that a sum that never comes does not hold up what is saved."""
    return mx.new_stream(mx.Device(mx.cpu))
