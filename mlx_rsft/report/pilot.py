"""What a pilot found, in words for who decides and in numbers for who has to build it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx_rsft.evaluation.verdict import FRACTION, GO, NO_GO, UNDECIDED

HEADLINES = {GO: "GO", NO_GO: "NO-GO", UNDECIDED: "NOT ENOUGH DATA"}
BASE = "base"


def headline(record: Mapping[str, Any]) -> str:
    """The verdict in one line."""
    word, winner, baseline = record["verdict"], record["winner"], record["baseline"]
    said = {
        GO: f"train with {winner} instead of {baseline}.",
        NO_GO: f"stay with {baseline}; nothing that was tried is worth a change.",
        UNDECIDED: f"whether anything beats {baseline} cannot be told yet.",
    }
    return f"{HEADLINES[word]}: {said[word]}"


def for_managers(record: Mapping[str, Any]) -> Iterator[str]:
    """What it means, without a statistical word."""
    yield from _reached(record)
    best = _best(record)
    if record["verdict"] == GO and best:
        yield (
            f"On {best['split']} that is {_points(abs(best['difference']), best['unit'])}"
            f" better than {record['baseline']}, more than chance explains, and it is "
            "not shown to be worse anywhere."
        )
        yield f"It {_time(record)}."
    if record["verdict"] == NO_GO:
        yield f"Of what was tried instead, {record['reason']}"
    if record["verdict"] == UNDECIDED:
        yield _lacks(record)
    yield from _of_the_bare_model(record)
    if len(record["size"]["arms"]) and record["size"]["seeds"] == 1:
        yield "Each was trained once only; another order of rows may end otherwise."


def _reached(record: Mapping[str, Any]) -> Iterator[str]:
    """What the bare model, the baseline and the winner get right, split by split."""
    winner, baseline, decides = record["winner"], record["baseline"], record["decides"]
    arms = {arm["name"]: arm["splits"] for arm in record["arms"]}
    shown = list(dict.fromkeys([BASE, baseline, winner]))
    names = {BASE: "untrained"}
    for split, told in record["splits"].items():
        parts = [
            f"{names.get(arm, arm)} {_value(arms[arm][split]['metrics'][decides])}"
            for arm in shown
        ]
        kind = "shifted conditions" if told["role"] == "shifted" else "as in training"
        yield f"{split} ({kind}, {told['rows']} rows): {', '.join(parts)}."


def _value(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "unknown"
    if metric["unit"] == FRACTION:
        return f"{100 * metric['value']:.0f} of 100 right"
    return f"{metric['value']:.3g} {metric['unit']}"


def _points(value: float, unit: str) -> str:
    return f"{100 * value:.0f} in 100" if unit == FRACTION else f"{value:.3g} {unit}"


def _best(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The winner's surest gain over the baseline, on shifted splits if there are any."""
    mine = [
        one
        for one in record["differences"]
        if one["arm"] == record["winner"] and one["metric"] == record["decides"]
    ]
    shifted = [o for o in mine if record["splits"][o["split"]]["role"] == "shifted"]
    return max(
        (o for o in shifted or mine if o["p_adjusted"] is not None),
        key=lambda o: (-o["p_adjusted"], abs(o["difference"])),
        default=None,
    )


def _time(record: Mapping[str, Any]) -> str:
    costs = {arm["name"]: arm["cost"] for arm in record["arms"]}
    mine, base = costs[record["winner"]], costs[record["baseline"]]
    if not (mine and base and base["seconds"]):
        return "costs no more to train"
    return f"takes {mine['seconds'] / base['seconds']:.2f} times as long to train"


def _lacks(record: Mapping[str, Any]) -> str:
    lacks = record["missing"]
    if lacks is None:
        return f"{record['reason']}"
    towards = {
        GO: f"that {lacks['arm']} is better, if what was seen is true",
        NO_GO: f"that {lacks['arm']} is not worth a change, if what was seen is true",
    }[lacks["towards"]]
    if not lacks["more"]:
        return (
            f"The {lacks['rows']:,} rows of {lacks['split']} would do; what differs is "
            f"each training from the next. More seeds would show {towards}."
        )
    return (
        f"About {lacks['more']:,} more rows of {lacks['split']} ({lacks['needed']:,} "
        f"instead of {lacks['rows']:,}) would show {towards}."
    )


def _of_the_bare_model(record: Mapping[str, Any]) -> Iterator[str]:
    """Whether training itself brought anything, which no arm's verdict says."""
    known = [one for one in record["gained"] if one["p_adjusted"] is not None]
    sure = [one for one in known if one["p_adjusted"] <= 0.05 and _gain(one) > 0]
    if len(sure) < len(known):
        splits = ", ".join(one["split"] for one in known if one not in sure)
        yield (
            f"Against the untrained model, {record['winner']} is not shown to be better "
            f"on: {splits}."
        )


def _gain(one: Mapping[str, Any]) -> float:
    return one["difference"] if one["better"] == "higher" else -one["difference"]


def for_engineers(record: Mapping[str, Any]) -> Iterator[str]:
    """The same in numbers: sizes, differences with intervals, limits, exports."""
    size, probe = record["size"], record["probe"]
    yield (
        f"{len(size['arms'])} arms ({'; '.join(size['arms'])}), {_seeds(size)} "
        f"from {record['seed']}, {size['steps']} steps; {record['seconds'] / 60:.1f} of "
        f"{record['minutes']:g} minutes"
    )
    yield (
        f"probe: mean p {probe['mean_p']:.3f} over {probe['rows']} rows, recommended "
        f"{probe['recommended']}, {probe['suspects']} rows look mislabelled"
    )
    for one in record["differences"]:
        if one["metric"] == record["decides"]:
            yield _difference(one)
    for one in record["gained"]:
        yield _difference(one)
    yield f"verdict: {record['verdict']}. {record['reason']}"
    for limit in record["limits"]:
        yield f"limit: {limit}"
    for entry in record["export"]:
        yield _exported(entry)


def _seeds(size: Mapping[str, Any]) -> str:
    return "1 seed" if size["seeds"] == 1 else f"{size['seeds']} seeds"


def _difference(one: Mapping[str, Any]) -> str:
    scale = 100 if one["unit"] == FRACTION else 1
    unit = "points" if one["unit"] == FRACTION else one["unit"]
    if one["low"] is None or one["p_adjusted"] is None:
        interval = "interval unknown"
    else:
        low, high = scale * one["low"], scale * one["high"]
        interval = f"95 % {low:+.1f} to {high:+.1f}, p {one['p_adjusted']:.2g}"
    return (
        f"{one['arm']} - {one['baseline']} on {one['split']}: "
        f"{scale * one['difference']:+.1f} {unit} of {one['metric']} ({interval}, n "
        f"{one['n']} x {one['seeds']})"
    )


def _exported(entry: Mapping[str, Any]) -> str:
    said = {True: "verified", False: "DIFFERS, do not use it", None: entry["note"]}
    apart = entry["max_difference"]
    figures = f", {apart:.2g} {entry['unit']} apart" if apart is not None else ""
    reader = f" by {entry['reader']}" if entry["reader"] else ""
    return f"export {entry['target']}: {said[entry['verified']]}{reader}{figures}"
