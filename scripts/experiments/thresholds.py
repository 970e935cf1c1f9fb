"""Where ``--objective auto`` should change over, by results; beside where it does.

    python scripts/experiments/thresholds.py DIR [DIR ...]

Every ``found.json`` below the folders says how likely the bare model found the training
rows (mean p) and how far the rectified arm was from plain SFT on each test split. A
cut-off is refuted from below by a result above it where the rectified arm is shown to be
worse, and from above by one below it where it is shown to be better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import showing
from experiment import FOUND, PLAIN

from mlx_rsft.objectives import choose

CUTS = {
    "STRONG": (choose.STRONG, "dft:floor=0.1"),
    "MEDIUM": (choose.MEDIUM, "power:alpha=0.5"),
    "WEAK": (choose.WEAK, "power:alpha=0.25"),
}
"""The cut-offs, and the arm of the experiments that is likest to what begins there."""
BESIDE = ("wrong_labels", "elsewhere")
"""Splits on which more exact matches are not better."""


@dataclass(frozen=True, slots=True)
class Point:
    """One arm against plain SFT on one split.

    Attributes:
        mean_p: Of the training rows under the bare model.
        low: End of the 95 % interval of the gain.
    """

    told: str
    arm: str
    mean_p: float
    gain: float
    low: float
    high: float


def main() -> None:
    """Print what was found of each arm, then the cut-offs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    places = [p for f in parser.parse_args().folders for p in sorted(f.rglob(FOUND))]
    points = [point for place in places for point in read(place)]
    used = {arm for _, arm in CUTS.values()}
    rows = [
        [
            f"{p.mean_p:.2f}",
            p.told,
            f"`{p.arm}`",
            showing.interval(p.gain, p.low, p.high),
        ]
        for p in sorted(points, key=lambda point: point.mean_p)
        if p.arm in used
    ]
    print("\n".join(showing.table(["mean p", "where", "arm", "gain over sft"], rows)))
    print()
    print("\n".join(lines(points)))


def read(place: Path) -> Iterator[Point]:
    """The points of one ``found.json``; toys have none."""
    found = json.loads(place.read_text(encoding="utf-8"))
    for one in found.get("against", ()):
        claim = one["claim"]
        if claim["split"] in BESIDE:
            continue
        (arm,) = set(claim["weights"]) - {PLAIN}
        told = f"{found['name']} {found['model']} {claim['split']}"
        span = one["value"], one["low"], one["high"]
        yield Point(told, arm, found["prior"]["mean_p"], *span)


def lines(points: Sequence[Point]) -> list[str]:
    """A row per cut-off: what holds in the code, and what the results allow."""
    rows = [
        [name, f"{held:.2f}", f"`{arm}`", allowed([p for p in points if p.arm == arm])]
        for name, (held, arm) in CUTS.items()
    ]
    return showing.table(["cut-off", "in choose.py", "arm", "results allow"], rows)


def allowed(points: Sequence[Point]) -> str:
    """The cut-offs that no result refutes, in words."""
    worse = [p.mean_p for p in points if p.high < 0]
    better = [p.mean_p for p in points if p.low > 0]
    least, most = max(worse, default=0.0), min(better, default=1.0)
    if not worse and not better:
        return f"any: none of {len(points)} results is decided"
    if least < most:
        return f"{least:.2f} to {most:.2f}"
    return (
        f"none: worse up to {least:.2f}, better from {most:.2f}; mean p alone does not "
        "decide"
    )


if __name__ == "__main__":
    main()
