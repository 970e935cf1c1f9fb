"""Whether a document still prints what the experiments find.

A toy's rows have to be there to the letter. A claim of a trained model has to be printed
with the same verdict and an interval that holds what is found now: another machine rounds
otherwise, and training carries that on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import showing

NUMBER = r"[-+]?\d+\.\d+"
INTERVAL = re.compile(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)")


def rows(lines: Sequence[str], document: str) -> list[str]:
    """Which of a table's lines the document does not have."""
    return [line for line in lines if line not in document.splitlines()]


def claims(found: Mapping[str, Any], document: str) -> list[str]:
    """What the document says otherwise of an experiment's claims, or leaves out."""
    printed = {tuple(cells[:2]): cells for cells in map(_cells, document.splitlines())}
    problems: list[str] = []
    for now in showing.claims(found):
        then = printed.get(tuple(now[:2]))
        if then is None or len(then) != len(now):
            problems.append(f"{now[1]} is not printed")
            continue
        value, printed_as = INTERVAL.search(now[2]), INTERVAL.search(then[2])
        assert value, "a claim is shown with its interval"
        if printed_as is None or not _holds(printed_as, float(value[1])):
            problems.append(f"{now[1]}: {then[2]} is printed, {now[2]} was found")
        if then[-1].split(",")[0] != now[-1].split(",")[0]:
            problems.append(f"{now[1]}: {then[-1]} is printed, {now[-1]} was found")
    return problems


def _holds(printed: re.Match[str], value: float) -> bool:
    return float(printed[2]) <= value <= float(printed[3])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
