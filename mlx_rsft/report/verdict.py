"""The first part of a report, in words: verdict, what failed, what to do next."""

from __future__ import annotations

from mlx_rsft.report import amounts, tables
from mlx_rsft.report.comparison import Difference
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.markup import Html, el, joined, name
from mlx_rsft.report.words import Words

SIGNS = {"go": "✓", "no-go": "✕", "undecided": "?"}


def verdict(say: Words, found: Findings) -> Html:
    """Go, no-go or undecided; why, in sentences and in three figures."""
    record, best = found.record, found.best
    sign = el("span", SIGNS[record.verdict], class_="sign", aria_hidden="true")
    headline = say.html(
        f"headline.{record.verdict}",
        arm=name(best.arm if best else amounts.UNKNOWN),
        baseline=name(found.baseline),
    )
    parts = [
        el("p", sign, el("strong", say(record.verdict)), class_="stamp"),
        el("p", headline, class_="headline"),
        *([_tiles(say, found, best)] if best else []),
    ]
    if reasons := _reasons(say, found, best):
        parts.append(el("ul", *(el("li", line) for line in reasons)))
    if record.reason:
        recorded = el("dt", say("reason")), el("dd", el("bdi", record.reason))
        parts.append(el("dl", *recorded, class_="reason"))
    return el("div", *parts, class_=f"verdict {record.verdict}")


def _tiles(say: Words, found: Findings, best: Difference) -> Html:
    tiles = [_tile(say, found, best, "tile_best")]
    inside = found.difference(best.arm, found.in_distribution)
    if inside and inside is not best:
        tiles.append(_tile(say, found, inside, "tile_in"))
    ratio = amounts.times(_seconds(found, best.arm), _seconds(found, found.baseline))
    if ratio != amounts.UNKNOWN:
        tiles.append(el("div", el("dt", say("tile_time")), el("dd", el("b", ratio))))
    return el("dl", *tiles, class_="tiles")


def _tile(say: Words, found: Findings, item: Difference, key: str) -> Html:
    unit = found.unit
    shown = el("b", amounts.in_points(say, item.difference, unit))
    ends = el("small", amounts.signed_interval(item, unit))
    reading = tables.outcome(say, found.outcome(item))
    arm = el("small", name(item.arm))
    term = el("dt", say.html(key, split=name(item.split)))
    return el("div", term, el("dd", shown, ends, reading, arm))


def _seconds(found: Findings, arm: str) -> float | None:
    one = found.arm(arm)
    return one.cost.seconds if one and one.cost else None


def _reasons(say: Words, found: Findings, best: Difference | None) -> list[Html]:
    if best is None:
        return []
    lines = [_compared(say, found, best)]
    inside = found.difference(best.arm, found.in_distribution)
    if inside and inside is not best:
        lines.append(_compared(say, found, inside))
    if (mine := _seconds(found, best.arm)) and (base := _seconds(found, best.baseline)):
        lines.append(
            say.html(
                "costs",
                arm=name(best.arm),
                time=amounts.seconds(say, mine),
                ratio=amounts.times(mine, base),
                baseline=name(best.baseline),
            )
        )
    if best.n and best.detectable:
        seen = amounts.in_points(say, best.detectable, found.unit).lstrip("+")
        lines.append(say.html("invisible", n=str(best.n), detectable=seen))
    return lines


def _compared(say: Words, found: Findings, item: Difference) -> Html:
    arm, base = found.arm(item.arm), found.arm(item.baseline)
    mine = arm.score(item.split, item.metric) if arm else None
    other = base.score(item.split, item.metric) if base else None
    sentence = say.html(
        "compared",
        split=name(item.split),
        arm=name(item.arm),
        baseline=name(item.baseline),
        value=amounts.with_unit(say, mine.value if mine else None, found.unit),
        other=amounts.with_unit(say, other.value if other else None, found.unit),
        metric=say.metric(item.metric),
        difference=el("b", amounts.in_points(say, item.difference, found.unit)),
        interval=_ends(item, found.unit),
    )
    return joined(
        [sentence, say("between_sentences"), say(f"says.{found.outcome(item)}")]
    )


def _ends(item: Difference, unit: str) -> Html:
    return el("span", amounts.signed_interval(item, unit), class_="whole")


def failures(say: Words, found: Findings) -> Html:
    """Every arm that scores nothing, every split that nobody mends, every harm."""
    lines = [say.html("failed.diverged", arm=name(arm.name)) for arm in found.diverged]
    nothing = {arm.name for arm, _ in found.zeros}
    for arm, splits in found.zeros:
        key = "zero_all" if len(splits) == len(found.splits) else "zero_some"
        named = joined(map(name, splits), say("between_names"))
        lines.append(say.html(f"failed.{key}", arm=name(arm.name), splits=named))
    lines += [_harm(say, found, d) for d in found.harmed if d.arm not in nothing]
    lines += [
        say.html("failed.nobody", split=name(split), baseline=name(found.baseline))
        for split in found.without_gain
    ]
    if not lines:
        quiet = say.html("failed.none", baseline=name(found.baseline))
        return el("p", quiet) if found.record.differences else Html()
    return el("ul", *(el("li", line) for line in lines), class_="failed")


def _harm(say: Words, found: Findings, item: Difference) -> Html:
    return say.html(
        "failed.worse",
        split=name(item.split),
        arm=name(item.arm),
        baseline=name(item.baseline),
        difference=amounts.in_points(say, item.difference, found.unit),
        interval=_ends(item, found.unit),
    )


def next_steps(say: Words, found: Findings) -> Html:
    """What to do with this verdict, in order."""
    kind, best = found.record.verdict, found.best
    arm = name(best.arm if best else found.baseline)
    lines = [say.html(f"next.{kind}", arm=arm, baseline=name(found.baseline))]
    if kind == "go":
        lines.append(say.html("next.go_check"))
    rows = found.rows_needed(best) if best and kind == "undecided" else None
    if best and rows:
        lines.append(
            say.html(
                "next.rows",
                rows=amounts.count(rows),
                split=name(best.split),
                now=amounts.count(best.n),
            )
        )
    if still := [s for s in found.without_gain if found.is_shifted(s)]:
        named = joined(map(name, still), say("between_names"))
        lines.append(say.html("next.nobody", splits=named))
    for zero, splits in found.zeros:
        if zero.name != found.baseline and len(splits) == len(found.splits):
            lines.append(say.html("next.zero", arm=name(zero.name)))
    return el("ol", *(el("li", line) for line in lines))
