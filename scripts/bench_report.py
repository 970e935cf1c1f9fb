"""The table of one scenario: medians of both sides, ratios, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench_work import Scenario

EQUAL = 0.02
"""Held-out NLLs that are no further apart than this come from equal work."""

Run = dict[str, Any]
Pair = dict[str, Run]


def rates(run: Run, *, whole: bool) -> dict[str, float]:
    """The figures of a run that a reader compares.

    Args:
        run: As ``bench_run`` wrote it.
        whole: Whether the time is that of whole processes.
    """
    seconds = run["process_seconds" if whole else "seconds"]
    return {
        "seconds": seconds,
        "tokens/s": run["tokens"] / seconds,
        "supervised tokens/s": run["supervised"] / seconds,
        "peak mlx MB": run["peak_bytes"] / 1e6,
        "peak resident MB": run["resident_bytes"] / 1e6,
        "padding %": 100 * (1 - run["tokens"] / max(run["positions"], run["tokens"])),
        "head rows": run["head_rows"],
    }


def ratios(pairs: Sequence[Pair], figure: str, *, whole: bool) -> list[float]:
    """Ours over the peer's, pair by pair."""
    return [
        rates(pair["ours"], whole=whole)[figure]
        / rates(pair["peer"], whole=whole)[figure]
        for pair in pairs
    ]


def apart(pairs: Sequence[Pair]) -> dict[str, float]:
    """By objective that both sides trained: the largest relative gap of their NLLs.

    Ours is the one that was told the peer's batches.
    """
    gaps: dict[str, float] = {}
    for pair in pairs:
        ours, peer = pair["peer"]["told_nll"], pair["peer"]["nll"]
        for name in pair["ours"]["nll"].keys() & peer.keys():
            gap = abs(ours[name] - peer[name]) / peer[name]
            gaps[name] = max(gaps.get(name, 0.0), gap)
    return gaps


def table(name: str, work: Scenario, found: Run, *, judged: bool) -> str:
    """All that was measured of one scenario, as text.

    Args:
        name: Of the scenario.
        work: What was asked.
        found: What ``bench`` measured.
        judged: Whether the sizes are those that the targets are for.
    """
    lines = [f"({name}) {work.about}: {work.rows} rows, {work.updates} updates"]
    for peer, pairs in found["pairs"].items():
        lines += ["", *_figures(peer, pairs, whole=bool(work.arms))]
        lines += _unequal(pairs[0])
        lines += _equality(pairs, found["base_nll"])
        lines += _targets(work, pairs, judged=judged)
    return "\n".join(lines) + "\n"


def _unequal(pair: Pair) -> list[str]:
    """What one side had and the other had not."""
    return [
        f"  NOT alike: {what} was {pair['ours'][what]} in ours, {pair['peer'][what]} there"
        for what in ("blas", "checkpoint")
        if pair["ours"][what] != pair["peer"][what]
    ]


def _figures(peer: str, pairs: Sequence[Pair], *, whole: bool) -> list[str]:
    clock = "whole processes" if whole else "updates alone"
    lines = [
        f"  {f'medians of {len(pairs)}, {clock}':32} {'ours':>10} {peer:>12}   ratio"
    ]
    sides = [[rates(pair[side], whole=whole) for pair in pairs] for side in pairs[0]]
    by_side = dict(zip(pairs[0], sides, strict=True))
    for figure in by_side["ours"][0]:
        ours, other = (
            statistics.median(run[figure] for run in by_side[side])
            for side in ("ours", "peer")
        )
        line = f"  {figure:32} {ours:10,.1f} {other:12,.1f}"
        if figure != "padding %":
            line += f"   {_spread(ratios(pairs, figure, whole=whole))}"
        lines.append(line)
    return lines


def _spread(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"


def _equality(pairs: Sequence[Pair], base: float) -> list[str]:
    first = pairs[0]
    lines: list[str] = []
    for name, gap in sorted(apart(pairs).items()):
        peer, told = (first["peer"][kind][name] for kind in ("nll", "told_nll"))
        equal = "equal work" if gap <= EQUAL else "NOT equal work"
        own = first["ours"]["nll"][name]
        lines += [
            f"  held-out NLL, {name}, of the peer's batches: ours {told:.4f}, peer "
            f"{peer:.4f}, {gap:.2%} apart: {equal}",
            f"    of our own batches {own:.4f}; of the bare model {base:.4f}",
        ]
    return lines


def _targets(work: Scenario, pairs: Sequence[Pair], *, judged: bool) -> list[str]:
    if not judged:
        return ["  short form: sizes that say nothing of speed; no target is judged"]
    whole = bool(work.arms)
    cases: list[tuple[str, str, float, str, Callable[[float], bool]]] = [
        ("speed", "tokens/s", work.speed, "at least", lambda got: got >= work.speed),
        (
            "memory",
            "peak mlx MB",
            work.memory,
            "at most",
            lambda got: got <= work.memory,
        ),
    ]
    lines: list[str] = []
    for what, figure, target, way, reached in cases:
        got = statistics.median(ratios(pairs, figure, whole=whole))
        verdict = "reached" if reached(got) else "missed"
        lines.append(f"  {what} {got:.2f}, target {way} {target:g}: {verdict}")
    return lines
