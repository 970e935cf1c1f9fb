"""The plots, as pure functions: curves, differences with intervals, histograms, bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_rsft.report import drawing
from mlx_rsft.report.comparison import Outcome
from mlx_rsft.report.drawing import WIDTH, Caption, box, label, rule
from mlx_rsft.report.markup import Html, el

Show = Callable[[float], str]
"""A number as its axis shows it."""
LEFT, RIGHT, TOP = 42, 10, 10
FOREST_ROW = 46
SHAPES: dict[Outcome, str] = {
    "better": "triangle",
    "worse": "inverted",
    "changed": "diamond",
    "unclear": "circle",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One series: places from left to right, with a band of (x, low, high) or none."""

    number: int
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of a forest plot."""

    name: str
    shown: str
    value: float | None
    low: float | None
    high: float | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its name and its value as text; None: not known."""

    number: int
    name: str
    value: float | None
    shown: str


def curves(
    caption: Caption,
    lines: Sequence[Line],
    ends: tuple[float, float],
    across: str,
    show: Show,
) -> Html:
    """Several series over one quantity.

    Args:
        caption: Its name and description.
        lines: The series; each has its own colour, dash and marker.
        ends: The least and the greatest value that any of the plots beside it has.
        across: What the horizontal axis counts.
        show: Writes a value of the vertical axis.
    """
    height, bottom = 220, 220 - 40
    xs = [x for line in lines for x, _ in line.points]
    up = drawing.ticks(*ends, 4)
    along = drawing.ticks(min(xs), max(xs), 4)
    x = drawing.scale(min(xs), max(along), LEFT, WIDTH - RIGHT)
    y = drawing.scale(up[0], up[-1], bottom, TOP)
    parts = _grid(up, y, show)
    for at in along:
        if at >= min(xs):
            parts.append(label(x(at), bottom + 16, f"{at:g}", "middle", "faint"))
    parts.append(label(WIDTH - RIGHT, height - 8, across, "end", "faint"))
    parts += [_curve(line, x, y) for line in lines]
    return drawing.frame(caption, height, parts)


def _grid(
    up: Sequence[float], y: Show | Callable[[float], float], show: Show
) -> list[Html]:
    parts: list[Html] = []
    for at in up:
        place = float(y(at))
        parts.append(rule("grid", LEFT, place, WIDTH - RIGHT, place))
        parts.append(label(LEFT - 6, place + 4, show(at), "end", "faint"))
    return parts


def _curve(
    line: Line, x: Callable[[float], float], y: Callable[[float], float]
) -> Html:
    parts: list[Html] = []
    if line.band:
        there = [f"{x(at):.1f} {y(high):.1f}" for at, _, high in line.band]
        back = [f"{x(at):.1f} {y(low):.1f}" for at, low, _ in reversed(line.band)]
        parts.append(el("path", class_="band", d=f"M{'L'.join(there + back)}z"))
    way = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in line.points)
    dashes = drawing.dash(line.number) or "none"
    parts.append(el("path", class_="line", d=f"M{way}", stroke_dasharray=dashes))
    parts += [drawing.marker(line.number, x(at), y(v), 3.4) for at, v in line.points]
    return drawing.group(line.number, *parts)


def forest(
    caption: Caption,
    rows: Sequence[Interval],
    ends: tuple[float, float],
    sides: tuple[str, str],
    show: Show,
) -> Html:
    """Differences with their intervals, one below the other, around zero.

    Args:
        caption: Its name and description.
        rows: Better points up, worse down, unclear is hollow; so colour is not needed.
        ends: The least and the greatest value that any of the plots beside it has.
        sides: What left and right of zero mean.
        show: Writes a value of the axis.
    """
    bottom = FOREST_ROW * len(rows)
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    along = [at for at in drawing.ticks(low, high) if low <= at <= high]
    x = drawing.scale(low, high, 16, WIDTH - 16)
    parts: list[Html] = []
    for place, row in enumerate(rows):
        top = FOREST_ROW * place
        for at in along:
            kind = "zero" if at == 0 else "grid"
            parts.append(rule(kind, x(at), top + 19, x(at), top + FOREST_ROW - 2))
        parts += _interval(row, top, x)
    for at in along:
        parts.append(label(x(at), bottom + 12, show(at), "middle", "faint"))
    parts.append(label(0, bottom + 32, f"← {sides[0]}", "start", "faint"))
    parts.append(label(WIDTH, bottom + 32, f"{sides[1]} →", "end", "faint"))
    return drawing.frame(caption, bottom + 38, parts)


def _interval(row: Interval, top: float, x: Callable[[float], float]) -> list[Html]:
    room = WIDTH - drawing.width_of(row.shown, 11) - 8
    parts = [
        label(0, top + 13, drawing.fitted(row.name, room), kind="strong"),
        label(WIDTH, top + 13, row.shown, "end", "faint"),
    ]
    if row.value is None:
        return parts
    middle = top + 31
    drawn: list[Html] = []
    if row.low is not None and row.high is not None:
        a, b = x(row.low), x(row.high)
        drawn.append(rule("stroke", a, middle, b, middle))
        drawn += [rule("stroke", end, middle - 4, end, middle + 4) for end in (a, b)]
    kind = "hollow" if row.outcome == "unclear" else "mark"
    shape = SHAPES[row.outcome]
    drawn.append(drawing.shape(shape, x(row.value), middle, 5.5, kind))
    return [*parts, el("g", *drawn, class_=row.outcome)]


def histograms(
    caption: Caption,
    before: Sequence[float],
    after: Sequence[float],
    number: int,
    end: float,
    across: str,
) -> Html:
    """Two histograms over 0 to 1 in one: an outline before, filled after.

    Args:
        caption: Its name and description.
        before: Share of each bin, from 0 to 1.
        after: The same of the other.
        number: The series whose colour ``after`` has.
        end: The greatest share that any of the plots beside it has.
        across: What the horizontal axis is.
    """
    height, bottom = 200, 200 - 40
    up = drawing.ticks(0.0, max(end, 0.01), 4)
    y = drawing.scale(up[0], up[-1], bottom, TOP)
    show = "{:.0%}".format
    width = (WIDTH - LEFT - RIGHT) / max(len(before), 1)
    parts = _grid(up, y, show)
    filled: list[Html] = []
    steps = f"M{LEFT} {bottom}"
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        left = LEFT + place * width
        filled.append(box("fill", left + 1.5, y(new), width - 3, bottom - y(new)))
        steps += f"V{y(old):.1f}H{left + width:.1f}"
    parts.append(drawing.group(number, *filled))
    parts.append(el("path", class_="outline before", d=f"{steps}V{bottom}"))
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LEFT + at * (WIDTH - LEFT - RIGHT)
        parts.append(label(x, bottom + 16, f"{at:g}", "middle", "faint"))
    parts.append(label(WIDTH - RIGHT, height - 8, across, "end", "faint"))
    return drawing.frame(caption, height, parts)


def bars(caption: Caption, rows: Sequence[Bar], end: float) -> Html:
    """Bars from zero, one below the other, each with its value.

    Args:
        caption: Its name and description.
        rows: The bars.
        end: The greatest value that any of the plots beside it has.
    """
    step = 40
    x = drawing.scale(0.0, end or 1.0, 0, WIDTH - 64)
    parts: list[Html] = []
    for place, row in enumerate(rows):
        top = place * step
        parts.append(label(0, top + 13, drawing.fitted(row.name, WIDTH)))
        parts.append(box("trough", 0, top + 19, WIDTH - 64, 13))
        long = x(row.value) if row.value is not None else 0.0
        drawn = box("fill", 0, top + 19, long, 13)
        parts.append(drawing.group(row.number, drawn))
        parts.append(label(WIDTH - 56, top + 30, row.shown, kind="strong"))
    return drawing.frame(caption, step * len(rows), parts)
