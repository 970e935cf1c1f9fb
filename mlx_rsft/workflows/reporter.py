"""How a workflow tells what it does, without knowing where that is shown."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Told how much more is done, and a word on how it stands."""

    def __call__(self, done: int, text: str = "") -> None: ...


class Reporter(Protocol):
    """Where a workflow's news go."""

    def note(self, text: str) -> None:
        """Say one thing."""
        ...

    def task(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Show progress of ``total`` units while the block runs."""
        ...


class Silent:
    """A reporter that keeps quiet; for use as a library."""

    def note(self, text: str) -> None:
        del text

    @contextmanager
    def task(self, title: str, total: int) -> Generator[Advance]:
        del title, total

        def advance(done: int, text: str = "") -> None:
            del done, text

        yield advance
