"""What plots are drawn with: a frame, text of known width, scales, marks.

Colours are the page's, by class, so that a plot follows light, dark and paper. Units are
those of the view box, which is as wide as a phone: text stays as large as the page's.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_rsft.report.markup import Html, el, joined

WIDTH = 320
SERIES = 8
"""Colours and dashes there are; after them they begin anew, with other markers."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "12 4", "1 4", "6 3 1 3 1 3")
MARKERS = ("circle", "square", "triangle", "diamond", "inverted", "cross", "plus")
TINY = 1e-9
"""A range that is narrower, beside its values or beside 1, counts as one value."""
STYLE = """
svg.plot { display: block; width: 100%; height: auto; }
svg.plot text { font: 12px/1 var(--sans); fill: var(--ink); }
svg.plot text.faint { fill: var(--faint); font-size: 11px; }
svg.plot text.strong { font-weight: 600; }
svg.plot .grid { stroke: var(--line); stroke-width: 1; }
svg.plot .axis { stroke: var(--faint); stroke-width: 1; }
svg.plot .zero { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .band { fill: var(--c); opacity: .16; }
svg .mark { fill: var(--c); stroke: var(--card); stroke-width: 1; }
svg .stroke { fill: none; stroke: var(--c); stroke-width: 2.2; }
svg .hollow { fill: var(--card); stroke: var(--c); stroke-width: 2; }
svg .fill { fill: var(--c); }
svg .outline { fill: none; stroke: var(--c); stroke-width: 1.5; }
""" + "".join(f".s{n} {{ --c: var(--s{n}); }}\n" for n in range(SERIES))


@dataclass(frozen=True, slots=True)
class Caption:
    """What a plot is called and says, for those who do not see it.

    Attributes:
        key: Unique on the page; letters, digits and dashes.
    """

    key: str
    title: str
    desc: str


def frame(caption: Caption, height: float, parts: Sequence[str]) -> Html:
    """A plot as an image with a title and a description."""
    title, desc = f"{caption.key}-title", f"{caption.key}-desc"
    return el(
        "svg",
        el("title", caption.title, id=title),
        el("desc", caption.desc, id=desc),
        *parts,
        **{
            "class": "plot",
            "viewBox": f"0 0 {WIDTH} {height:g}",
            "role": "img",
            "aria-labelledby": title,
            "aria-describedby": desc,
        },
    )


def scale(
    low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
    """A linear way from values to places; values beyond are held at the ends."""
    width = (high - low) or 1.0

    def place(value: float) -> float:
        share = min(max((value - low) / width, 0.0), 1.0)
        return start + share * (end - start)

    return place


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``."""
    width = high - low
    if width < TINY * max(abs(low), abs(high)) or width < TINY:
        width = max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(width / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if width / (s * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def width_of(text: str, size: float = 12) -> float:
    """About how wide a text is: wide letters are square, others six tenths of it."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (wide + 0.6 * (len(text) - wide))


def fitted(text: str, width: float, size: float = 12) -> str:
    """The text, with its middle left out where it is wider."""
    shown, keep = text, len(text)
    while keep and width_of(shown, size) > width:
        keep -= 1
        head = (keep * 2 + 1) // 3
        shown = f"{text[:head]}…{text[len(text) - (keep - head) :]}"
    return shown


def label(
    x: float, y: float, content: str, anchor: str = "start", kind: str = ""
) -> Html:
    """A line of text; ``kind`` is ``faint`` or ``strong``."""
    return el(
        "text",
        content,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor=anchor,
        **({"class": kind} if kind else {}),
    )


def rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> Html:
    """A straight line of a class."""
    return el(
        "line",
        class_=kind,
        x1=f"{x1:.1f}",
        y1=f"{y1:.1f}",
        x2=f"{x2:.1f}",
        y2=f"{y2:.1f}",
    )


def box(kind: str, x: float, y: float, width: float, height: float) -> Html:
    """A rectangle of a class."""
    return el(
        "rect",
        class_=kind,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        width=f"{max(width, 0):.1f}",
        height=f"{max(height, 0):.1f}",
    )


def series(number: int) -> str:
    """The class of a series' colour."""
    return f"s{number % SERIES}"


def dash(number: int) -> str:
    """The dashes of a series' line; empty for a solid one."""
    return DASHES[number % len(DASHES)]


def marker(number: int, x: float, y: float, size: float = 4) -> Html:
    """The mark of a series, or a shape by name."""
    return shape(MARKERS[number % len(MARKERS)], x, y, size)


def shape(name: str, x: float, y: float, size: float = 4, kind: str = "mark") -> Html:
    """A small shape around a place."""
    a, b = size, size * 1.25
    outlines = {
        "square": f"M{x - a:.1f} {y - a:.1f}h{2 * a}v{2 * a}h{-2 * a}z",
        "triangle": f"M{x:.1f} {y - b:.1f}l{b} {2 * a}h{-2 * b}z",
        "inverted": f"M{x:.1f} {y + b:.1f}l{b} {-2 * a}h{-2 * b}z",
        "diamond": f"M{x:.1f} {y - b:.1f}l{b} {b}l{-b} {b}l{-b} {-b}z",
        "cross": f"M{x - a:.1f} {y - a:.1f}l{2 * a} {2 * a}m0 {-2 * a}l{-2 * a} {2 * a}",
        "plus": f"M{x:.1f} {y - b:.1f}v{2 * b}M{x - b:.1f} {y:.1f}h{2 * b}",
    }
    if name == "circle":
        return el("circle", class_=kind, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{size:g}")
    stroked = "stroke" if name in ("cross", "plus") else kind
    return el("path", class_=stroked, d=outlines[name])


def sample(number: int) -> Html:
    """A stroke of a series' line with its mark, for a legend."""
    line = el(
        "path", class_="line", d="M2 8h32", stroke_dasharray=dash(number) or "none"
    )
    return el(
        "svg",
        line,
        marker(number, 18, 8),
        **{
            "class": f"key {series(number)}",
            "viewBox": "0 0 36 16",
            "width": "36",
            "height": "16",
            "aria-hidden": "true",
        },
    )


def group(number: int, *parts: str) -> Html:
    """Parts in the colour of a series."""
    return el("g", joined(parts), class_=series(number))
