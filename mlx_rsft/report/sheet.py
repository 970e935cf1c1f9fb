"""A sheet for people who compare answers without knowing who wrote them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from mlx_rsft.evaluation.ratings import Pair
from mlx_rsft.report.page import page

COLUMNS = ("number", "question", "demonstrated", "answer_a", "answer_b", "better")
MARKS = ("A", "B", "=")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would compute rather than show."""

STYLE = """
article { border-top: 2px solid var(--line); padding: .5rem 0 1rem; break-inside: avoid; }
h2 { margin-top: .8rem; }
h3 { font-size: .9rem; margin: .8rem 0 .2rem; color: var(--faint); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: .6rem;
  border: 1px solid var(--line); border-radius: .4rem; font: inherit; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr));
  gap: 0 1rem; }
p.mark { margin: .8rem 0 0; } p.mark span { margin-right: 1.5rem; }
"""
HOW = (
    "Say for each question which answer is better, without asking who wrote them. Write "
    "A, B or = into the column better of sheet.csv, or tick here and copy it later. Leave "
    "what you cannot judge empty."
)


def sheet_csv(pairs: Sequence[Pair]) -> str:
    """The sheet as a table whose last column is to be filled in."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    for pair in pairs:
        said = (pair.question, pair.demonstrated, pair.answer_a, pair.answer_b)
        rows.writerow([pair.number, *map(_harmless, said), ""])
    return "\ufeff" + text.getvalue()  # the mark tells spreadsheets that it is UTF-8


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def sheet_page(pairs: Sequence[Pair]) -> str:
    """The sheet to read and print."""
    body = [f"<p>{HOW}</p>", *map(_pair, pairs)]
    return page(
        f"Which answer is better? {len(pairs)} questions", "\n".join(body), STYLE
    )


def _pair(pair: Pair) -> str:
    boxes = "".join(f"<span>\u2610 {mark}</span>" for mark in MARKS)
    return (
        f"<article><h2>{pair.number}</h2>\n<h3>Question</h3>"
        f"<pre>{escape(pair.question)}</pre>\n"
        f"<h3>Answer in the data</h3><pre>{escape(pair.demonstrated)}</pre>\n"
        f'<div class="pair"><div><h3>Answer A</h3><pre>{escape(pair.answer_a)}</pre></div>'
        f"<div><h3>Answer B</h3><pre>{escape(pair.answer_b)}</pre></div></div>\n"
        f'<p class="mark">{boxes}</p></article>'
    )
