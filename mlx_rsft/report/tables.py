"""The tables of a report: rows side by side on a screen, one below the other on a phone."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_rsft.report import amounts, drawing
from mlx_rsft.report.comparison import BASE, Arm, Difference, Measured, SideEffect
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.markup import Html, el, joined, name, text
from mlx_rsft.report.words import Words

MARKS = {"better": "▲", "worse": "▼", "changed": "◆", "unclear": "○"}
"""Shapes, so that no reading hangs on colour."""


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table whose first column names its rows.

    Roles are spelled out, because some browsers forget them once a row is laid out as a
    card on a phone. There each cell carries the name of its column.
    """
    head = joined(
        el("th", column, scope="col", role="columnheader") for column in columns
    )
    body = joined(el("tr", _cells(columns, row), role="row") for row in rows)
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", head, role="row"), role="rowgroup"),
            el("tbody", body, role="rowgroup"),
            role="table",
        ),
        class_="scroll",
        role="group",
        aria_label=caption,
        tabindex="0",
    )


def _cells(columns: Sequence[str], row: Sequence[str]) -> Html:
    first = el("th", row[0], scope="row", role="rowheader")
    titles = [el("span", column, class_="of", aria_hidden="true") for column in columns]
    others = (
        el("td", title, el("span", cell, class_="cell"), role="cell")
        for title, cell in zip(titles[1:], row[1:], strict=True)
    )
    return joined([first, *others])


def arm_name(say: Words, found: Findings, arm: str) -> Html:
    """An arm with what it is in the comparison."""
    if arm == BASE:
        return joined([name(arm), " ", el("small", say("is_base"))])
    if arm == found.baseline:
        return joined([name(arm), " ", el("small", say("is_baseline"))])
    return name(arm)


def results(say: Words, found: Findings) -> Html:
    """Arms by splits in the deciding metric."""
    columns = [text(say("arm")), *(_split_name(say, found, s) for s in found.splits)]
    rows = [
        [
            arm_name(say, found, arm.name),
            *(_score(say, found, arm, split) for split in found.splits),
        ]
        for arm in found.all_arms
    ]
    return table(say.heading(found.metric), columns, rows)


def _split_name(say: Words, found: Findings, split: str) -> Html:
    role = say("is_shifted" if found.is_shifted(split) else "is_in")
    return joined([name(split), el("small", role)])


def _score(say: Words, found: Findings, arm: Arm, split: str) -> Html:
    score = arm.score(split, found.metric)
    if score is None or score.value is None:
        return text(amounts.UNKNOWN)
    ends = amounts.interval(score.low, score.high, score.unit)
    parts: list[str] = [
        el("b", amounts.with_unit(say, score.value, score.unit)),
        el("small", ends),
    ]
    if score.unit == amounts.FRACTION:
        share = min(max(score.value, 0.0), 1.0)
        number = found.number(arm.name)
        kind = "" if number is None else drawing.series(number)
        length = el("i", class_=kind, style=f"width:{100 * share:.1f}%")
        parts.append(el("span", length, class_="meter", aria_hidden="true"))
    difference = found.difference(arm.name, split)
    if score.value == 0 and not found.lower_is_better:
        kind = "unclear" if arm.name == BASE else "worse"
        parts.append(el("small", f"✕ {say('none_right')}", class_=kind))
    elif difference and found.outcome(difference) != "unclear":
        parts.append(outcome(say, found.outcome(difference)))
    return joined(parts)


def outcome(say: Words, kind: str) -> Html:
    """A reading as a mark and a word."""
    return el("small", f"{MARKS[kind]} {say(kind)}", class_=kind)


def differences(say: Words, found: Findings, level: str) -> Html:
    """Every difference on record, the deciding metric first."""
    order = sorted(found.record.differences, key=lambda d: d.metric != found.metric)
    ends = el("small", say("interval", level=level))
    heads = [text(say(key)) for key in ("arm", "split", "metric")]
    heads.append(joined([say("difference"), ends]))
    heads += [say(key) for key in ("reading", "p_value", "p_adjusted", "detectable")]
    rows = [_difference(say, found, difference) for difference in order]
    return table(say("differences"), heads, rows)


def _difference(say: Words, found: Findings, item: Difference) -> list[str]:
    unit = found.unit_of(item.metric)
    shown = el("b", amounts.in_points(say, item.difference, unit))
    return [
        name(item.arm),
        name(item.split),
        say.metric(item.metric),
        joined([shown, el("small", amounts.signed_interval(item, unit))]),
        outcome(say, found.outcome(item)),
        joined([amounts.p_value(item.p_value), el("small", item.test)]),
        amounts.p_value(item.p_adjusted),
        amounts.in_points(say, item.detectable, unit).lstrip("+"),
    ]


def all_metrics(say: Words, found: Findings) -> Html:
    """Every metric of every split, arms side by side."""
    arms = found.all_arms
    columns = [text(say("metric")), text(say("split")), *(name(a.name) for a in arms)]
    rows = [
        [
            text(say.metric(metric)),
            name(split),
            *(_measured(say, arm.score(split, metric)) for arm in arms),
        ]
        for metric in found.metrics
        for split in found.splits
        if any(arm.score(split, metric) for arm in arms)
    ]
    return table(say("all_metrics"), columns, rows)


def _measured(say: Words, found: Measured | SideEffect | None) -> Html:
    if found is None or found.value is None:
        return text(amounts.UNKNOWN)
    shown = amounts.with_unit(say, found.value, found.unit)
    ends = amounts.interval(found.low, found.high, found.unit)
    return joined([shown, " ", el("small", ends)])


def side_effects(say: Words, found: Findings) -> Html:
    """The gains of each arm on every split beside whatever else changed."""
    effects = found.record.side_effects
    kinds = list(dict.fromkeys((e.metric, e.set) for e in effects))
    gains = [say.html("gain_in", split=name(split)) for split in found.splits]
    columns = [text(say("arm")), *gains, *(_effect_head(say, found, k) for k in kinds)]
    measured = {(e.arm, e.metric, e.set): e for e in effects}
    listed = [arm.name for arm in found.all_arms]
    arms = [arm for arm in listed if arm != BASE or any(e.arm == arm for e in effects)]
    rows = [
        [
            arm_name(say, found, arm),
            *(_gain(say, found, arm, split) for split in found.splits),
            *(_measured(say, measured.get((arm, *kind))) for kind in kinds),
        ]
        for arm in arms
    ]
    return table(say("side_effects"), columns, rows)


def _effect_head(say: Words, found: Findings, kind: tuple[str, str]) -> Html:
    metric, chosen = kind
    better = next(
        e.better for e in found.record.side_effects if (e.metric, e.set) == kind
    )
    wish = say.known(better, better) if better else ""
    return joined([say.heading(metric), el("small", name(chosen)), el("small", wish)])


def _gain(say: Words, found: Findings, arm: str, split: str) -> Html:
    item = found.difference(arm, split)
    if item is None or item.difference is None:
        return text(amounts.UNKNOWN)
    shown = el("b", amounts.in_points(say, item.difference, found.unit))
    return joined([shown, outcome(say, found.outcome(item))])


def costs(say: Words, found: Findings) -> Html:
    """What each arm took, and what its objective did meanwhile."""
    keys = ("arm", "time", "time_ratio", "energy", "peak", "tokens", "rate", "mean_p")
    columns = [say(key) for key in (*keys, "ess")]
    reference = found.arm(found.baseline)
    seconds = reference.cost.seconds if reference and reference.cost else None
    rows = [_cost(say, found, arm, seconds) for arm in found.trained]
    return table(say("cost"), columns, rows)


def _cost(say: Words, found: Findings, arm: Arm, reference: float | None) -> list[str]:
    cost, training = arm.cost, arm.training
    spent = cost.seconds if cost else None
    objective = arm.objective or arm.name
    told = [el("small", name(objective))] if objective != arm.name else []
    rate = arm.learning_rate
    return [
        joined([arm_name(say, found, arm.name), *told]),
        amounts.seconds(say, spent),
        amounts.times(spent, reference),
        amounts.energy(cost.joules if cost else None),
        amounts.memory(cost.peak_bytes if cost else None),
        amounts.count(cost.tokens if cost else None),
        amounts.UNKNOWN if rate is None else f"{rate:g}",
        amounts.number(training.mean_p if training else None),
        amounts.with_unit(say, training.ess if training else None, amounts.FRACTION),
    ]
