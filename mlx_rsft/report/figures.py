"""The plots of a report, from its record: what is drawn, and how it is read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mlx_rsft.report import amounts, drawing, svg
from mlx_rsft.report.comparison import CLASSES
from mlx_rsft.report.drawing import Caption
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.markup import Html, el, joined, name
from mlx_rsft.report.words import Words

MOST_CURVES = 12
"""Plots of learning curves; the deciding metric comes first."""
LIKELY = 0.5


def figure(title: str, plot: Html) -> Html:
    """A plot with its title above."""
    return el("figure", el("figcaption", title), plot)


def grid(plots: Sequence[Html]) -> Html:
    """Plots side by side, as many as the page is wide."""
    return el("div", *plots, class_="plots")


def numbers(found: Findings) -> dict[str, int]:
    """Each arm's number, by which it has its colour, dash and marker everywhere."""
    return {arm.name: place for place, arm in enumerate(found.trained)}


def legend(found: Findings, arms: Sequence[str]) -> Html:
    """Which arm has which line."""
    number = numbers(found)
    items = (
        el("li", drawing.sample(number[arm]), " ", name(arm))
        for arm in number
        if arm in arms
    )
    return el("ul", *items, class_="legend")


def forests(say: Words, found: Findings) -> list[Html]:
    """One plot of differences per split, all on the same axis."""
    ends = _ends(found)
    unit = found.unit
    sides = (say("baseline_better"), say("arm_better"))
    if found.lower_is_better:
        sides = (sides[1], sides[0])
    plots: list[Html] = []
    for place, split in enumerate(found.splits):
        rows = [
            svg.Interval(
                d.arm,
                f"{amounts.signed(d.difference, unit)} "
                f"{amounts.signed_interval(d, unit)}".rstrip(),
                d.difference,
                d.low,
                d.high,
                d.outcome(found.record.level),
            )
            for d in found.differences(split)
        ]
        if not rows:
            continue
        desc = " ".join(
            say(
                "desc.difference",
                arm=row.name,
                difference=amounts.in_points(say, row.value, unit),
                interval=row.shown.partition(" ")[2],
                outcome=say(row.outcome),
            )
            for row in rows
        )
        caption = Caption(f"forest-{place}", f"{say('differences')}: {split}", desc)
        plot = svg.forest(
            caption, rows, ends, sides, lambda at: amounts.short_signed(at, unit)
        )
        plots.append(figure(name(split), plot))
    return plots


def _ends(found: Findings) -> tuple[float, float]:
    items = [d for split in found.splits for d in found.differences(split)]
    values = [v for d in items for v in (d.difference, d.low, d.high) if v is not None]
    return min(values, default=0.0), max(values, default=0.0)


def curves(say: Words, found: Findings) -> list[Html]:
    """One plot per metric and split, with every arm's mean over its seeds."""
    points = [p for p in found.record.curves if p.arm in numbers(found)]
    kinds = dict.fromkeys((p.metric, p.split) for p in points if p.value is not None)
    order = sorted(kinds, key=lambda kind: (kind[0] != found.metric, kind[0]))
    return [
        _curves(say, found, metric, split, f"curve-{place}")
        for place, (metric, split) in enumerate(order[:MOST_CURVES])
    ]


def _curves(say: Words, found: Findings, metric: str, split: str, key: str) -> Html:
    unit = found.unit_of(metric)
    lines: list[svg.Line] = []
    told: list[str] = []
    for arm, number in numbers(found).items():
        line = _line(found, arm, number, metric, split)
        if not line.points:
            continue
        lines.append(line)
        (start, first), (end, last) = line.points[0], line.points[-1]
        told.append(
            say(
                "desc.curve",
                arm=arm,
                first=amounts.with_unit(say, first, unit),
                start=f"{start:g}",
                last=amounts.with_unit(say, last, unit),
                end=f"{end:g}",
            )
        )
    title = joined([name(split), el("small", say.metric(metric))])
    mine = [p for p in found.record.curves if p.metric == metric]
    values = [p.value for p in mine if p.value is not None]
    ends = min(values), max(values)
    caption = Caption(key, f"{say.metric(metric)}: {split}", " ".join(told))
    plot = svg.curves(
        caption, lines, ends, say("step"), lambda at: amounts.short(at, unit)
    )
    return figure(title, plot)


def _line(found: Findings, arm: str, number: int, metric: str, split: str) -> svg.Line:
    at: dict[int, list[float]] = {}
    for point in found.record.curves:
        mine = (point.arm, point.metric, point.split) == (arm, metric, split)
        if mine and point.value is not None:
            at.setdefault(point.step, []).append(point.value)
    steps = sorted(at)
    band = [(float(step), min(at[step]), max(at[step])) for step in steps]
    several = any(len(values) > 1 for values in at.values())
    means = [(float(step), fmean(at[step])) for step in steps]
    return svg.Line(number, means, band if several else ())


def histograms(say: Words, found: Findings) -> list[Html]:
    """One pair of histograms per arm, before and after training."""
    record = found.record.histograms
    if record is None or not sum(record.before):
        return []
    before = _shares(record.before)
    drawn = [_shares(counts) for counts in record.after.values() if sum(counts)]
    end = max(share for shares in [before, *drawn] for share in shares)
    plots: list[Html] = []
    for arm, number in numbers(found).items():
        if not sum(record.after.get(arm, ())):
            continue
        after = _shares(record.after[arm])
        middle = round(len(before) * LIKELY)
        desc = say(
            "desc.histogram",
            edge=f"{LIKELY:g}",
            before=f"{100 * sum(before[middle:]):.1f} %",
            after=f"{100 * sum(after[middle:]):.1f} %",
        )
        title = f"{say('probabilities')}: {arm}"
        plot = svg.histograms(
            Caption(f"histogram-{number}", title, desc),
            before,
            after,
            number,
            end,
            say("probability"),
        )
        plots.append(figure(name(arm), plot))
    return plots


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / sum(counts) for count in counts]


def weights(say: Words, found: Findings) -> list[Html]:
    """One plot of bars per class of tokens, with every arm's mean weight."""
    known = {
        arm.name: arm.training.weight_by_class
        for arm in found.trained
        if arm.training and arm.training.weight_by_class
    }
    names = dict.fromkeys([*CLASSES, *(c for by in known.values() for c in by)])
    values = [v for by in known.values() for v in by.values() if v is not None]
    end = max(values, default=1.0)
    plots: list[Html] = []
    for place, kind in enumerate(names):
        rows = [
            svg.Bar(number, arm, value, amounts.short(value))
            for arm, number in numbers(found).items()
            if arm in known and kind in known[arm]
            for value in [known[arm][kind]]
        ]
        if not rows:
            continue
        title = say.known(f"class.{kind}", kind)
        desc = " ".join(say("desc.bar", arm=r.name, value=r.shown) for r in rows)
        caption = Caption(f"weight-{place}", f"{say('weights')}: {title}", desc)
        plots.append(figure(title, svg.bars(caption, rows, end)))
    return plots
