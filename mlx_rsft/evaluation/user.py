"""Metrics of your own: ``module:function``, found from the folder you are in.

    def function(answer: str, row: Example) -> float

``answer`` is what the model wrote; ``row`` has ``answer`` (what was demonstrated),
``tags``, ``id`` and ``where``. The figure is the mean over rows, in your own unit, and
is read as better when higher; true counts 1.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation.judges import Judge

ADDRESS = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")


def load(address: str) -> Judge:
    """The user's function, its answers checked.

    Raises:
        ConfigError: If there is no such module or function.
    """
    function = _found(address)

    def judge(answer: str, row: Example) -> float:
        try:
            score = function(answer, row)
        except Exception as problem:
            raise DataError(
                f"{address} raised {type(problem).__name__}: {problem}.",
                where=row.where,
                hint=f"The answer was {answer[:200]!r}.",
            ) from problem
        number = float(score) if isinstance(score, bool | int | float) else math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{address} returned {score!r}, expected a finite number.",
                where=row.where,
            )
        return number

    return judge


def _found(address: str) -> Any:
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address!r} is not of the form module:function.")
    try:
        with _here_first():
            module = importlib.import_module(match["module"])
    except Exception as problem:
        raise ConfigError(
            f"{match['module']} cannot be imported ({type(problem).__name__}: "
            f"{problem}).",
            hint="Start where the module lies, or install it.",
        ) from problem
    function = getattr(module, match["function"], None)
    if not callable(function):
        raise ConfigError(f"{match['module']} has no function {match['function']!r}.")
    return function


@contextmanager
def _here_first() -> Generator[None]:
    """Imports look into the working folder, as they do under ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
