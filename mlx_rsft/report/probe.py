"""The page of a probe: what the model makes of the rows, and tokens by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mlx_rsft.report.page import page
from mlx_rsft.report.tokens import visible

LEVELS = 5
"""Steps of colour; beside it each token has its weight in writing."""

STYLE = """
table { border-collapse: collapse; } td, th { padding: .15rem .7rem; text-align: right;
  border-bottom: 1px solid var(--line); } td:first-child, th:first-child {
  text-align: left; } div.scroll { overflow-x: auto; }
td:first-child { overflow-wrap: anywhere; } td.edges { white-space: nowrap; }
td.bar { min-width: 9rem; } td.bar div { background: var(--faint); height: .8rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 2.1;
  border: 1px solid var(--line); border-radius: .4rem; padding: 1rem; }
pre span { border-left: 1px solid var(--line); color: var(--on-ink); }
pre span.read { color: var(--faint); } sub { font-size: .6em; }
pre span.end, pre span.template { text-decoration: underline dotted; }
.w0 { background: #ffffff; } .w1 { background: #e3f4e5; } .w2 { background: #c4e7c9; }
.w3 { background: #a2d8aa; } .w4 { background: #7cc687; }
@media (prefers-color-scheme: dark) { .w0 { background: #161616; }
  .w1 { background: #14301a; } .w2 { background: #164221; }
  .w3 { background: #185429; } .w4 { background: #1b6631; } }
"""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A row, and what each of its trained tokens weighs under an objective.

    Attributes:
        spans: Half-open ranges of its supervised tokens, N in all.
        texts: Every token as text.
        p: Probability of each supervised token, as are ``weight`` and ``kinds``.
        suspect: Whether it is shown because its answer looks wrong.
    """

    where: str
    spans: Sequence[tuple[int, int]]
    texts: Sequence[str]
    p: Sequence[float]
    weight: Sequence[float]
    kinds: Sequence[str]
    suspect: bool


def probe_page(
    record: Mapping[str, Any], shown: Sequence[Weighed], objective: str
) -> str:
    """The page of a probe.

    Args:
        record: The probe as ``--json`` prints it.
        shown: The rows whose tokens are on it.
        objective: The one whose weights they have.
    """
    body = [*_advice(record), *_objectives(record), *_bins(record)]
    return page(
        "Before training",
        "\n".join([*body, *_suspects(record), *_rows(shown, objective)]),
        STYLE,
    )


def _advice(record: Mapping[str, Any]) -> Iterator[str]:
    advice = record["recommendation"]
    yield f"<p>Recommended: <b>{escape(advice['objective'])}</b>.</p>"
    for reason in (advice["reason"], *advice["remarks"]):
        yield f"<p>{escape(reason[:1].upper() + reason[1:])}</p>"
    yield (
        f'<p class="faint">{escape(record["model"])} read {record["rows"]} of '
        f"{record['rows_there_are']} training rows, {record['tokens']} trained tokens: "
        f"mean probability {record['mean_p']:.3f}, NLL {record['nll']:.2f} nats per "
        f"token.</p>"
    )
    parts = [("class", record["classes"]), ("tag", record["tags"])]
    rows = [
        [
            f"{kind} {name}",
            str(part["tokens"]),
            f"{part['mean_p']:.3f}",
            f"{part['nll']:.2f}",
        ]
        for kind, group in parts
        for name, part in group.items()
    ]
    yield _table(["tokens of", "tokens", "mean p", "NLL"], rows)


def _bins(record: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Tokens by probability, and where the gradient comes from</h2>"
    counts = record["histogram"]["all"]
    most, total = max(*counts, 1), max(sum(counts), 1)
    heads = "".join(f"<th>{letter(n)}</th>" for n in range(len(record["objectives"])))
    lines = [f"<tr><th>p</th><th></th><th>tokens</th>{heads}</tr>"]
    for place, count in enumerate(counts):
        shares = "".join(
            f"<td>{entry['gradient'][place]:.1%}</td>" for entry in record["objectives"]
        )
        lines.append(
            f'<tr><td class="edges">{place / len(counts):.2f} to {(place + 1) / len(counts):.2f}</td>'
            f'<td class="bar"><div style="width:{count / most:.1%}"></div></td>'
            f"<td>{count / total:.1%}</td>{shares}</tr>"
        )
    yield f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _objectives(record: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>What each objective would do</h2>"
    yield (
        '<p class="faint">Trained: share of the tokens that weigh at least 0.1, where '
        "plain SFT gives 1. Effective: sample size of the weights. Form: steps until the "
        "form of the answers is learned, times those of plain SFT, by a rough law and "
        "without the schedule.</p>"
    )
    rows = [
        [
            f"{letter(place)}  {entry['objective']}",
            f"{entry['trained']:.0%}",
            f"{entry['ess']:.0%}",
            *(f"{share:.0%}" for share in entry["gradient_by_class"].values()),
            slowdown(entry),
        ]
        for place, entry in enumerate(record["objectives"])
    ]
    shares = [
        f"gradient on {name}" for name in record["objectives"][0]["gradient_by_class"]
    ]
    yield _table(["objective", "trained", "effective", *shares, "form"], rows)


def letter(place: int) -> str:
    """The letter that stands for an objective in narrow columns."""
    return chr(ord("A") + place)


def slowdown(entry: Mapping[str, Any]) -> str:
    """How much slower than plain SFT an objective learns the form of the answers."""
    if entry["format_learned"] is None:
        return "not known"
    if not entry["format_learned"]:
        return "never"
    times = entry["format_slowdown"]
    return "known already" if times is None else f"x {times:,.1f}"


def _suspects(record: Mapping[str, Any]) -> Iterator[str]:
    found = record["suspects"]
    yield f"<h2>{len(found)} rows to look at</h2>"
    if not record["neighbours_agree"]:
        yield (
            "<p>Answers differ too much to be held against those of similar prompts; "
            "these are the least likely ones.</p>"
        )
    rows = [
        [s["where"], f"{s['mean_p']:.3f}", s["answer"], s["neighbours_say"]]
        for s in found
    ]
    if rows:
        yield _table(["row", "mean p", "says", "rows with similar prompts say"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(head)}</th>" for head in heads)
    others = "".join(
        f"<tr>{''.join(f'<td>{escape(visible(cell))}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{first}</tr>{others}</table></div>'


def _rows(shown: Sequence[Weighed], objective: str) -> Iterator[str]:
    yield f"<h2>Tokens by their weight under {escape(objective)}</h2>"
    yield (
        '<p class="faint">The darker the green, the more a token weighs; its weight '
        "stands below it. Faint tokens are read only; those with dotted lines are the "
        "form that the answers share, or their end.</p>"
    )
    for row in shown:
        why = " (its answer looks wrong)" if row.suspect else ""
        yield f"<p>{escape(row.where)}{why}</p>\n<pre>{''.join(_tokens(row))}</pre>"


def _tokens(row: Weighed) -> Iterator[str]:
    trained = [place for start, end in row.spans for place in range(start, end)]
    number = {place: n for n, place in enumerate(trained)}
    most = max(1.0, *map(abs, row.weight))
    for place, text in enumerate(row.texts):
        said = escape(visible(text))
        if place not in number:
            yield f'<span class="read">{said}</span>'
            continue
        at = number[place]
        weight, kind = row.weight[at], row.kinds[at]
        level = min(LEVELS - 1, int(max(0.0, weight) / most * LEVELS))
        yield (
            f'<span class="w{level} {kind}" title="p {row.p[at]:.4f}, weight '
            f'{weight:.3f}, {kind}">{said}<sub>{weight:.2f}</sub></span>'
        )
