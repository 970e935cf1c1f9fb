"""What people see: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlx_rsft.errors import RsftError
from mlx_rsft.records import finite
from mlx_rsft.report.tokens import visible
from mlx_rsft.workflows.reporter import Advance

BAR_WIDTH = 24
BLOCKS = " ▏▎▍▌▋▊▉█"
PIPED_WIDTH = 240
"""Columns of a table that no terminal bounds, so that nothing of it is cut."""


def emit_json(record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """The one JSON document of a command with ``--json``."""
    text = json.dumps(finite(record), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def emit(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: bool = False
) -> None:
    """A table of the result; all but the first column right aligned, or ``left``."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        drawn.add_column(
            name,
            justify="right" if place and not left else "left",
            no_wrap=not (left and place),
        )
    for row in rows:
        drawn.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(drawn)


def bar(share: float) -> str:
    """A bar of this share of ``BAR_WIDTH`` columns, to an eighth of one."""
    eighths = round(max(0.0, share) * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + BLOCKS[rest] * (rest > 0)).ljust(BAR_WIDTH)


def tokens(found: Sequence[Mapping[str, Any]], *, ids: bool) -> None:
    """Tokens in one run of text; trained ones on colour, or in brackets without it.

    Line breaks, lone spaces and control characters are made visible.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, soft_wrap=True)
    coloured = console.color_system is not None
    line = Text()
    for token in found:
        text = visible(token["text"])
        text += f"({token['id']})" if ids else ""
        if not token["trained"]:
            line.append(text)
        elif coloured:
            line.append(text, style="black on green")
        else:
            line.append(f"[{text}]")
    console.print(line)


def fail(problem: RsftError, *, as_json: bool) -> int:
    """Show an error where it belongs; returns the exit code."""
    if as_json:
        emit_json({"error": problem.as_record()})
    else:
        sys.stderr.write(f"mlx-rsft: {problem}\n")
    return problem.exit_code


class TerminalReporter:
    """A workflow's news on stderr: progress bars in a terminal, plain lines in a log."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Say one thing."""
        self._console.print(f"note: {text}", markup=False)

    @contextmanager
    def task(self, title: str, total: int) -> Generator[Advance]:
        """Show progress of ``total`` units (0: unknown) while the block runs."""
        show = self._bar if self._console.is_terminal else self._lines
        with show(title, total) as advance:
            yield advance

    @contextmanager
    def _bar(self, title: str, total: int) -> Generator[Advance]:
        from rich import progress

        columns: list[progress.ProgressColumn] = [
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            *([progress.MofNCompleteColumn()] if total else []),
            progress.TextColumn("{task.fields[text]}", markup=False),
            progress.TimeElapsedColumn(),
            *([progress.TimeRemainingColumn()] if total else []),
        ]
        with progress.Progress(*columns, console=self._console) as bar:
            task = bar.add_task(title, total=total or None, text="")

            def advance(done: int, text: str = "") -> None:
                words = {"text": text} if text else {}
                bar.update(task, advance=done, **words)  # pyright: ignore

            yield advance
            if not total:
                bar.update(task, total=1, completed=1, text="")

    @contextmanager
    def _lines(self, title: str, total: int) -> Generator[Advance]:
        so_far = shown = 0

        def advance(done: int, text: str = "") -> None:
            nonlocal so_far, shown
            so_far += done
            if total and (so_far * 10 // total > shown or so_far == total):
                shown = so_far * 10 // total
                line = f"{title}: {so_far}/{total}  {text}".rstrip()
                self._console.print(line, markup=False)

        if not total:
            self._console.print(title, markup=False)
        yield advance
