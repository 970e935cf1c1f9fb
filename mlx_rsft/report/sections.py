"""A comparison as a page: the verdict in words first, then the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping

from mlx_rsft import __version__
from mlx_rsft.report import amounts, figures, style, tables, verdict
from mlx_rsft.report.comparison import Comparison, Example
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.markup import Html, el, joined, name, written
from mlx_rsft.report.page import page
from mlx_rsft.report.words import Words

MOST_EXAMPLES = 24
MOST_LETTERS = 1200
"""Of a text that is shown; the record has all of it."""


def comparison_page(record: Comparison, lang: str = "en") -> str:
    """The whole page.

    Args:
        record: What was compared.
        lang: ``en`` or ``ja``.
    """
    say, found = Words(lang), Findings(record)
    level = f"{100 * (1 - record.level):g}"
    bodies = {
        "verdict": verdict.verdict(say, found),
        "failures": verdict.failures(say, found),
        "next": verdict.next_steps(say, found),
        "results": _results(say, found, level),
        "differences": _differences(say, found, level),
        "curves": _curves(say, found),
        "side_effects": _side_effects(say, found),
        "probabilities": _probabilities(say, found),
        "weights": _weights(say, found),
        "examples": _examples(say, found),
        "cost": _cost(say, found),
        "method": _method(say, found, level),
        "limits": _limits(say, record),
    }
    shown = {key: body for key, body in bodies.items() if body}
    sections = joined(_section(say, key, body) for key, body in shown.items())
    foot = el("footer", el("p", say("footer", version=__version__)))
    return page(
        say("title"),
        sections,
        style.STYLE,
        lang=lang,
        lead=_lead(say, found, shown),
        foot=foot,
    )


def _section(say: Words, key: str, body: Html) -> Html:
    heading = el("h2", say(key), id=f"{key}-title")
    return el("section", heading, body, id=key, aria_labelledby=f"{key}-title")


def _lead(say: Words, found: Findings, shown: Mapping[str, Html]) -> Html:
    record = found.record
    seeds = say("between_names").join(map(str, record.seeds))
    facts = {
        "model": record.model,
        "data": record.data,
        "seeds": seeds,
        "steps": amounts.count(record.steps) if record.steps is not None else "",
        "created": record.created,
    }
    items = (
        el("div", el("dt", say(key)), el("dd", name(value)))
        for key, value in facts.items()
        if value
    )
    links = (el("li", el("a", say(key), href=f"#{key}")) for key in shown)
    contents = el("nav", el("ul", *links), aria_label=say("contents"))
    return joined([el("dl", *items, class_="facts"), contents])


def _about(say: Words, key: str, **values: str) -> Html:
    return el("p", say.html(f"about.{key}", **values), class_="about")


def _results(say: Words, found: Findings, level: str) -> Html:
    about = _about(
        say,
        "results",
        metric=say.heading(found.metric),
        level=level,
        direction=say("lower" if found.lower_is_better else "higher"),
        baseline=name(found.baseline),
    )
    parts = [about, tables.results(say, found)]
    if len(found.metrics) > 1:
        more = el("summary", say("all_metrics"))
        parts.append(el("details", more, tables.all_metrics(say, found)))
    return joined(parts)


def _differences(say: Words, found: Findings, level: str) -> Html:
    if not found.record.differences:
        return Html()
    about = _about(
        say,
        "differences",
        baseline=name(found.baseline),
        metric=say.metric(found.metric),
        level=level,
    )
    plots = figures.grid(figures.forests(say, found))
    return joined([about, plots, tables.differences(say, found, level)])


def _curves(say: Words, found: Findings) -> Html:
    plots = figures.curves(say, found)
    if not plots:
        return Html()
    drawn = [p.arm for p in found.record.curves if p.value is not None]
    legend = figures.legend(found, drawn)
    return joined([_about(say, "curves"), legend, figures.grid(plots)])


def _probabilities(say: Words, found: Findings) -> Html:
    plots = figures.histograms(say, found)
    if not plots:
        return Html()
    return joined([_about(say, "probabilities"), figures.grid(plots)])


def _weights(say: Words, found: Findings) -> Html:
    plots = figures.weights(say, found)
    return joined([_about(say, "weights"), figures.grid(plots)]) if plots else Html()


def _side_effects(say: Words, found: Findings) -> Html:
    if not found.record.side_effects and not found.record.differences:
        return Html()
    about = _about(say, "side_effects", baseline=name(found.baseline))
    parts = [about, tables.side_effects(say, found)]
    if not found.record.side_effects:
        parts.append(_about(say, "unmeasured"))
    return joined(parts)


def _examples(say: Words, found: Findings) -> Html:
    examples = found.record.examples
    if not examples:
        return Html()
    parts = [_about(say, "examples")]
    parts += [_example(say, found, example) for example in examples[:MOST_EXAMPLES]]
    if len(examples) > MOST_EXAMPLES:
        left = str(len(examples) - MOST_EXAMPLES)
        parts.append(el("p", say("more_examples", n=left), class_="about"))
    return joined(parts)


def _example(say: Words, found: Findings, example: Example) -> Html:
    title = name(example.split)
    if example.row is not None:
        title = say.html("row_of", split=title, row=str(example.row))
    pairs = [(say("prompt"), example.prompt), (say("reference"), example.reference)]
    parts = [
        el("div", el("dt", term), el("dd", _cut(say, content)))
        for term, content in pairs
    ]
    for arm, answer in example.answers.items():
        right = example.right.get(arm)
        kind = {True: "right", False: "wrong", None: "not_judged"}[right]
        mark = {True: "✓", False: "✕", None: "?"}[right]
        judged = el("small", f"{mark} {say(kind)}", class_=kind)
        term = joined([tables.arm_name(say, found, arm), " ", judged])
        parts.append(
            el("div", el("dt", term), el("dd", _cut(say, answer)), class_="answer")
        )
    return el("article", el("h3", title), el("dl", *parts), class_="example")


def _cut(say: Words, content: str) -> Html:
    if not content.strip():
        return el("p", say("empty"), class_="empty")
    left = len(content) - MOST_LETTERS
    if left <= 0:
        return written(content)
    return written(content[:MOST_LETTERS] + say("cut", n=amounts.count(left)))


def _cost(say: Words, found: Findings) -> Html:
    if not any(arm.cost for arm in found.trained):
        return Html()
    return joined([_about(say, "cost"), tables.costs(say, found)])


def _method(say: Words, found: Findings, level: str) -> Html:
    parts = [el("p", say("method.same")), el("p", say("method.paired", level=level))]
    if found.record.method:
        facts = (
            el("div", el("dt", name(key)), el("dd", name(_plain(value))))
            for key, value in found.record.method.items()
        )
        recorded = el("h3", say("method.recorded"))
        parts += [recorded, el("dl", *facts, class_="facts")]
    return joined(parts)


def _plain(value: object) -> str:
    """A free fact as text, the way JSON writes it."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items())
    if value is None:
        return amounts.UNKNOWN
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(say: Words, record: Comparison) -> Html:
    own = el("ul", *(el("li", say(f"limits.{key}")) for key in ("one", "unclear")))
    if not record.limits:
        return own
    stated = el("ul", *(el("li", el("bdi", limit)) for limit in record.limits))
    return joined([own, el("h3", say("limits.recorded")), stated])
