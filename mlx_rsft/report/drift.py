"""The history of a suite as a page: one plot per metric, and every model in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_rsft.report import drawing, style, svg
from mlx_rsft.report.drawing import Caption
from mlx_rsft.report.figures import figure, grid
from mlx_rsft.report.markup import Html, el, joined, name
from mlx_rsft.report.page import page
from mlx_rsft.report.svg import Line

Entries = Sequence[Mapping[str, Any]]
OUTCOMES = {"pass": "better", "regression": "worse", "reference": "unclear"}
SIGNS = {"pass": "✓", "regression": "✕", "reference": "•"}


def drift_page(history: Entries, better: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        history: Entries of ``history.jsonl``, the oldest first, at least one.
        better: By metric: ``higher``, ``lower``, ``near 1`` or ``neither``.
    """
    splits = list(dict.fromkeys(s for entry in history for s in entry["splits"]))
    plots = [
        figure(f"{metric} ({direction} is better)", _plot(history, splits, metric, n))
        for n, (metric, direction) in enumerate(better.items())
    ]
    legend = el(
        "ul",
        *(
            el("li", drawing.sample(n), " ", name(split))
            for n, split in enumerate(splits)
        ),
        class_="legend",
    )
    about = (
        "Every model answered the same frozen rows. Bands are 95 % intervals over rows. "
        "An alarm needs the whole interval of the loss, seeds included, to lie beyond "
        "what is tolerated."
    )
    body = [
        el("p", about, class_="about"),
        legend,
        grid(plots),
        el("h2", "Models"),
        el("div", _table(history), class_="scroll", tabindex="0"),
    ]
    return page("Drift", joined(body), style.STYLE)


def _plot(history: Entries, splits: Sequence[str], metric: str, number: int) -> Html:
    lines = [
        line
        for place, split in enumerate(splits)
        if (line := _line(history, split, metric, place)).points
    ]
    ends = [v for line in lines for _, low, high in line.band for v in (low, high)]
    ends += [value for line in lines for _, value in line.points]
    last = ", ".join(
        f"{split} {line.points[-1][1]:.3g}"
        for split, line in zip(splits, lines, strict=False)
    )
    caption = Caption(
        f"drift-{number}", metric, f"{metric} of {len(history)} models; last: {last}."
    )
    if not ends:
        return el("p", "No values.", class_="empty")
    across = "model, by its number in the table"
    return svg.curves(caption, lines, (min(ends), max(ends)), across, "{:.3g}".format)


def _line(history: Entries, split: str, metric: str, number: int) -> Line:
    found = [
        (place, entry["splits"][split]["metrics"][metric])
        for place, entry in enumerate(history, start=1)
        if metric in entry["splits"].get(split, {}).get("metrics", {})
    ]
    points = [(at, m["value"]) for at, m in found if m["value"] is not None]
    band = [
        (at, m["low"], m["high"])
        for at, m in found
        if None not in (m["value"], m["low"], m["high"])
    ]
    return Line(number, points, band)


def _table(history: Entries) -> Html:
    heads = ("no.", "model", "when", "verdict", "what is worse")
    rows = [
        el(
            "tr",
            el("td", str(place)),
            el("th", name(entry["label"]), scope="row"),
            el("td", entry["time"][:16].replace("T", " ")),
            el(
                "td",
                f"{SIGNS[entry['verdict']]} {entry['verdict']}",
                class_=OUTCOMES[entry["verdict"]],
            ),
            el("td", "; ".join(worse(entry))),
        )
        for place, entry in enumerate(history, start=1)
    ]
    head = el("tr", *(el("th", text, scope="col") for text in heads))
    return el("table", el("thead", head), el("tbody", *rows))


def worse(entry: Mapping[str, Any]) -> Iterator[str]:
    """What is worse, in words."""
    for one in entry["checks"]:
        if one["outcome"] == "worse" and one["high"] is None:
            yield f"{one['split']} {one['metric']} is no number any more"
        elif one["outcome"] == "worse":
            yield (
                f"{one['split']} {one['metric']} {one['value']:.3g}, reference "
                f"{one['reference']:.3g}: a loss of {-one['high']:.2g} at least, "
                f"{one['tolerance']:.2g} is tolerated"
            )
        elif one["outcome"] != "held":
            yield f"{one['split']} {one['metric']}: {one['outcome']}"
    yield from entry["beyond"]
