"""The figures of a report as rows, for JSON and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mlx_rsft.report.comparison import Comparison
from mlx_rsft.report.findings import Findings

Row = dict[str, Any]
COLUMNS = (
    *("figure", "arm", "baseline", "split", "metric", "seed", "step", "part"),
    *("value", "low", "high", "unit", "n", "stderr"),
    *("p_value", "p_adjusted", "detectable", "test", "better", "outcome"),
)
"""Of the table; a row leaves empty what its figure does not have."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that starts so would be computed by a spreadsheet."""
MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""By which spreadsheets know UTF-8."""


def figures(record: Comparison) -> list[Row]:
    """Every number that the page shows or draws, one row each."""
    makers = (_scores, _differences, _curves, _histograms, _weights, _effects, _costs)
    return [row for maker in makers for row in maker(record)]


def as_record(record: Comparison) -> dict[str, Any]:
    """The figures with what they say, as one JSON document."""
    found = Findings(record)
    return {
        "verdict": record.verdict,
        "reason": record.reason,
        "metric": found.metric,
        "baseline": found.baseline,
        "zero": {arm.name: splits for arm, splits in found.zeros},
        "without_gain": found.without_gain,
        "figures": figures(record),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as a table with a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return MARK + text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _scores(record: Comparison) -> Iterator[Row]:
    for arm in record.arms:
        for split, scores in arm.splits.items():
            for metric, found in scores.metrics.items():
                row = {"figure": "score", "arm": arm.name, "split": split}
                yield row | {"metric": metric} | asdict(found)


def _differences(record: Comparison) -> Iterator[Row]:
    units = Findings(record)
    for item in record.differences:
        row = {key: value for key, value in asdict(item).items() if key in COLUMNS}
        yield (
            {"figure": "difference", "value": item.difference}
            | row
            | {
                "unit": units.unit_of(item.metric),
                "outcome": item.outcome(record.level),
            }
        )


def _curves(record: Comparison) -> Iterator[Row]:
    for point in record.curves:
        yield {"figure": "curve"} | asdict(point)


def _histograms(record: Comparison) -> Iterator[Row]:
    if record.histograms is None:
        return
    bins = len(record.histograms.before)
    series = {"": record.histograms.before, **record.histograms.after}
    for arm, counts in series.items():
        for place, count in enumerate(counts):
            yield {
                "figure": "histogram",
                "arm": arm,
                "part": "after" if arm else "before",
                "low": place / bins,
                "high": (place + 1) / bins,
                "value": count,
                "unit": "tokens",
            }


def _weights(record: Comparison) -> Iterator[Row]:
    for arm in record.arms:
        known = arm.training.weight_by_class if arm.training else None
        for kind, value in (known or {}).items():
            yield {"figure": "weight", "arm": arm.name, "part": kind, "value": value}


def _effects(record: Comparison) -> Iterator[Row]:
    for effect in record.side_effects:
        row = asdict(effect)
        yield {"figure": "side_effect", "part": row.pop("set")} | row


def _costs(record: Comparison) -> Iterator[Row]:
    for arm in record.arms:
        for part, value in (asdict(arm.cost) if arm.cost else {}).items():
            yield {"figure": "cost", "arm": arm.name, "part": part, "value": value}
