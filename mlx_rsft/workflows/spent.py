"""What a run has taken: seconds and joules, over all processes that it went on in."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from mlx_rsft import energy


@dataclass(frozen=True, slots=True)
class Spent:
    """What was taken, without what was lost when a run was cut off.

    Attributes:
        training: Seconds of the steps alone.
        joules: Of the steps alone; None if the machine does not tell.
    """

    seconds: float = 0.0
    training: float = 0.0
    joules: float | None = 0.0


class Clock:
    """Counts from when it is made, on top of what was spent before."""

    def __init__(self, before: Spent) -> None:
        self._before = before
        self._began, self._meter = time.perf_counter(), energy.Meter()
        self._aside_seconds = self._aside_joules = 0.0

    @contextmanager
    def aside(self) -> Generator[None]:
        """Leave the block out of what the steps take."""
        began, meter = time.perf_counter(), energy.Meter()
        yield
        self._aside_seconds += time.perf_counter() - began
        self._aside_joules += meter.joules() or 0.0

    def spent(self) -> Spent:
        """Everything so far."""
        seconds = time.perf_counter() - self._began
        training = self._before.training + seconds - self._aside_seconds
        now, joules = self._meter.joules(but=self._aside_joules), self._before.joules
        return Spent(
            round(self._before.seconds + seconds, 2),
            round(training, 2),
            None if now is None or joules is None else joules + now,
        )
