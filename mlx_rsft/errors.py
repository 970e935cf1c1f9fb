"""Everything that can go wrong for a user, as one tree.

RsftError            exit code 2: the input can be mended by the user
├── ConfigError      a setting is unknown, mistyped, out of range or missing
├── DataError        a data file or a row in it
├── ModelError       a model, tokenizer or adapter cannot be found or loaded
├── RunError         a run directory cannot be made, read or written
├── MachineError     the machine lacks something: a backend, memory, a package
├── CheckFailed      exit code 3: a check said no
└── Interrupted      exit code 130: stopped by the user, what was done is saved

Every error says what was found and expected, ``where`` (file:line, key or path) and,
as ``hint``, what to do. A traceback means a bug of ours, never of the user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar, NoReturn


class RsftError(Exception):
    """A problem the user can mend: what, where, and what to do.

    Args:
        message: What was found and what was expected.
        where: ``file:line``, configuration key, flag or path; empty if nowhere.
        hint: What to do next; empty if the message already says it.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" {self.hint}" if self.hint else ""
        return f"{place}{self.message}{advice}"

    def as_record(self) -> dict[str, str]:
        """The error as the ``error`` object of ``--json`` output."""
        return {
            "kind": self.kind,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }


class ConfigError(RsftError):
    """A setting is unknown, mistyped, out of range or missing."""

    kind = "config"


class DataError(RsftError):
    """A data file, or a row in it, cannot be used.

    Args:
        message: What was found and what was expected.
        where: ``file:line``, or the file.
        hint: What to do next.
        fault: What kind of fault it is, in two words, where reports count it apart.
    """

    kind = "data"

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", fault: str = ""
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.fault = fault


class ModelError(RsftError):
    """A model, tokenizer or adapter cannot be found or loaded."""

    kind = "model"


class RunError(RsftError):
    """A run directory cannot be made, read or written."""

    kind = "run"


class MachineError(RsftError):
    """The machine lacks something: a backend, memory, a package."""

    kind = "machine"


class CheckFailed(RsftError):
    """A check the user asked for said no."""

    kind = "check"
    exit_code = 3


class Interrupted(RsftError):
    """Stopped by the user; what was done so far is saved."""

    kind = "interrupted"
    exit_code = 130


MOST_SHOWN = 20


def raise_together(problems: Sequence[RsftError]) -> None:
    """Raise all gathered problems as one error; do nothing if there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    _raise_joined(problems)


def _raise_joined(problems: Sequence[RsftError]) -> NoReturn:
    lines = [f"  {problem}" for problem in problems[:MOST_SHOWN]]
    if len(problems) > MOST_SHOWN:
        lines.append(f"  ... and {len(problems) - MOST_SHOWN} more")
    raise type(problems[0])(f"{len(problems)} problems:\n" + "\n".join(lines))


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name nearest to ``word``, or lists all."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}."
