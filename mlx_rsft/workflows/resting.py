"""Rests of a run, between two steps: on a battery that runs low, and in too much heat."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Generator
from typing import Any

from mlx_rsft import power
from mlx_rsft.machine import Awake
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.spent import Clock

LOOK_EVERY_S = 60.0
"""So long a run trains between two looks: asking takes some hundredths of a second."""
AGAIN_AFTER_S = 15.0
"""So long it waits before it looks again."""


class Rests:
    """Lets a run wait between steps until it may go on; nothing of it changes by that.

    Args:
        floor: Charge, percent, below which it waits for the charger; 0: it never waits.
        clock: Leaves the wait out of what the steps take.
        awake: Let go meanwhile, so that the machine may sleep.
        reporter: Told why it waits, and that it goes on.
    """

    def __init__(
        self, floor: int, clock: Clock, awake: Awake, reporter: Reporter
    ) -> None:
        self._floor, self._clock, self._awake = floor, clock, awake
        self._reporter = reporter
        self._looked = -LOOK_EVERY_S + time.monotonic()
        self._told = ""

    def told(self) -> str:
        """What the next step is to say of the wait before it; empty if there was none."""
        told, self._told = self._told, ""
        return told

    def between(self, step: int, save: Callable[[], object]) -> None:
        """Look if it is time to; wait if there is reason to, with all that is done saved.

        Ends at once when the user stops the run, who is heard by those that listen now.

        Args:
            step: The step that is done.
            save: Saves it.
        """
        if not self._floor or time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        if why := self._reason():
            save()
            self._reporter.note(
                f"waits after step {step}, which is saved: {why}. It goes on by itself; "
                "--battery-floor 0 never waits."
            )
            began = time.monotonic()
            stopped = self._wait()
            seconds = time.monotonic() - began
            self._told = f"{seconds:.0f} s, because {why}"
            if not stopped:
                self._reporter.note(f"goes on after {seconds:.0f} s.")

    def _reason(self) -> str:
        self._looked = time.monotonic()
        return power.now().why_rest(self._floor)

    def _wait(self) -> bool:
        """Wait as long as there is reason to; whether the user stopped it."""
        with self._clock.aside(), self._awake.let_go(), _sleeper() as slept:
            while slept(AGAIN_AFTER_S):
                if not self._reason():
                    return False
        return True


@contextlib.contextmanager
def _sleeper() -> Generator[Callable[[float], bool]]:
    """A sleep that signals to stop end early, beside what listens to those already.

    It says whether it was slept to its end. A byte in a pipe wakes it: unlike a lock,
    that can do no harm wherever the signal comes.
    """
    ear, mouth = os.pipe()
    kinds = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in kinds}

    def call(number: int, frame: object) -> None:
        os.write(mouth, b"!")
        if callable(before[number]):
            before[number](number, frame)

    for kind in kinds:
        signal.signal(kind, call)
    try:
        yield lambda seconds: not select.select([ear], [], [], seconds)[0]
    finally:
        for kind, listener in before.items():
            signal.signal(kind, listener)
        os.close(ear)
        os.close(mouth)
