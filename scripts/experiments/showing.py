"""Results as rows of Markdown, ready for RESULTS.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from claims import LOG_STEPS

CLAIMS = ("model", "claim", "difference (95 %)", "asked", "p", "n", "verdict")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def claims(found: Mapping[str, Any]) -> list[list[str]]:
    """A row per claim: what was found of it, and whether it holds."""
    return [_claim(found["model"], one) for one in found["claims"]]


def _claim(model: str, found: Mapping[str, Any]) -> list[str]:
    needs = f", {found['needs']:,} rows would" if found["needs"] else ""
    return [
        model,
        found["claim"]["says"],
        interval(found["value"], found["low"], found["high"], "+"),
        f"> {found['claim']['above']:.2f}",
        f"{found['p_adjusted']:.2g}",
        f"{found['n']} x {found['seeds']}",
        found["verdict"] + needs,
    ]


def means(found: Mapping[str, Any]) -> list[str]:
    """A table of one model: a row per arm, a column per metric and split."""
    columns = {
        (metric, split): None
        for splits in found["means"].values()
        for split, metrics in splits.items()
        for metric in metrics
    }
    rows = [
        [f"`{arm}`", f"{found['rates'][arm]:g}"]
        + [_cell(metric, splits[split][metric]) for metric, split in columns]
        for arm, splits in found["means"].items()
    ]
    return table(["arm", "rate", *map(", ".join, columns)], rows)


def _cell(metric: str, found: Mapping[str, Any]) -> str:
    if metric != LOG_STEPS:
        return mean(found)
    steps = [math.exp(found[name]) for name in ("value", "low", "high")]
    return "steps: {:.1f} ({:.1f} to {:.1f})".format(*steps)


def interval(
    value: float, low: float | None, high: float | None, sign: str = ""
) -> str:
    """A value with its interval, three digits behind the point."""
    if low is None or high is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def mean(found: Mapping[str, Any]) -> str:
    """The same of a mean as it is kept."""
    return interval(found["value"], found["low"], found["high"])


def experiment(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results of one experiment on every model."""
    first = found[0]
    verdicts = "; ".join(f"{one['model']}: {one['verdict']}" for one in found)
    cost = ", ".join(f"{one['seconds']:.0f} s" for one in found)
    return [
        f"**{first['name']}: {first['question']}** {verdicts}.",
        f"{first['steps']} steps, {first['seeds']} seeds, {cost}.",
        "",
        *table(CLAIMS, [row for one in found for row in claims(one)]),
        *(line for one in found for line in ["", *means(one)]),
        "",
    ]
