"""From differences to go, no-go or undecided, in words.

The claim that an arm is better rests on p-values corrected for all arms and splits, so
that of twenty comparisons of equal arms at most one ends with a claim.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlx_rsft import stats
from mlx_rsft.evaluation.differences import Contrast

GO, NO_GO, UNDECIDED = "go", "no-go", "undecided"
LEVEL = 0.05
MARGIN = 0.02
"""A gain of less than this share of the rows is not worth a change."""
FRACTION = "fraction"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why."""

    word: str
    reason: str
    arm: str = ""


def decide(
    contrasts: Sequence[Contrast], shifted: Collection[str], diverged: Collection[str]
) -> Verdict:
    """Whether an arm is to take the baseline's place.

    Go: an arm is shown to be better where conditions have shifted (in distribution, if
    no split has shifted) and worse nowhere. No-go: every arm is shown to be worse
    somewhere, came to no end, or has no gain worth a change within its intervals.

    Args:
        contrasts: Of the one metric that decides.
        shifted: Names of the splits that are not like the training rows.
        diverged: Arms whose training came to no end.
    """
    by_arm: dict[str, list[Contrast]] = {}
    for contrast in contrasts:
        by_arm.setdefault(contrast.arm, []).append(contrast)
    if not by_arm:
        return Verdict(UNDECIDED, "There is no second arm to hold against the first.")
    sound = {arm: found for arm, found in by_arm.items() if arm not in diverged}
    decisive = set(shifted) & {c.split for c in contrasts} or {
        c.split for c in contrasts
    }
    winners = {
        arm: [c for c in found if is_gain(c) and c.split in decisive]
        for arm, found in sound.items()
        if not any(map(is_harm, found))
    }
    winners = {arm: gains for arm, gains in winners.items() if gains}
    if winners:
        return _go(winners, sound)
    if all(
        _is_hopeless(arm, found, diverged, decisive) for arm, found in by_arm.items()
    ):
        return Verdict(NO_GO, _against(by_arm, diverged))
    return Verdict(UNDECIDED, _open(sound, decisive))


def is_gain(contrast: Contrast) -> bool:
    """Whether the arm is shown to be better, corrected for the whole family."""
    return contrast.p_adjusted <= LEVEL and contrast.gain > 0


def is_harm(contrast: Contrast) -> bool:
    """Whether it is shown to be worse."""
    return contrast.p_adjusted <= LEVEL and contrast.gain < 0


def _is_hopeless(
    arm: str,
    found: Sequence[Contrast],
    diverged: Collection[str],
    decisive: Collection[str],
) -> bool:
    if arm in diverged or any(map(is_harm, found)):
        return True
    return all(
        c.unit == FRACTION and c.most < MARGIN for c in found if c.split in decisive
    )


def _go(
    winners: Mapping[str, Sequence[Contrast]], sound: Mapping[str, Sequence[Contrast]]
) -> Verdict:
    def total(arm: str) -> float:
        return sum(contrast.gain for contrast in sound[arm])

    arm = max(winners, key=total)
    gains = "; ".join(map(told, winners[arm]))
    others = len(sound[arm]) - len(winners[arm])
    beside = " It is not shown to be worse on any other split." if others else ""
    return Verdict(
        GO, f"{arm} is better than {winners[arm][0].baseline}: {gains}.{beside}", arm
    )


def _against(
    by_arm: Mapping[str, Sequence[Contrast]], diverged: Collection[str]
) -> str:
    said: list[str] = []
    for arm, found in by_arm.items():
        harms = [c for c in found if is_harm(c)]
        if arm in diverged:
            said.append(f"{arm} came to no end, its loss was not finite")
        elif harms:
            said.append(f"{arm} is worse: {'; '.join(map(told, harms))}")
        else:
            most = max(c.most for c in found)
            said.append(f"{arm} gains {_size(most, FRACTION)} at most")
    return ". ".join(said) + "."


def _open(sound: Mapping[str, Sequence[Contrast]], decisive: Collection[str]) -> str:
    open_ones = [c for found in sound.values() for c in found if c.split in decisive]
    best = max(open_ones, key=lambda contrast: contrast.gain)
    said = (
        f"No arm is shown to be better. The largest gain is {best.arm}'s: {told(best)}."
    )
    if best.gain > 0 and best.spread > 0:
        rows = max(best.n, stats.rows_needed(best.gain, best.spread))
        said += (
            f" If it is real, about {rows:,} rows of that split would show it"
            f"{', and more seeds' if best.seeds < 5 else ''}."
        )
    return said


def told(contrast: Contrast) -> str:
    """One difference in words."""
    low, high = sorted((contrast.low, contrast.high))
    return (
        f"on {contrast.split} {contrast.metric} differs by "
        f"{_size(contrast.difference, contrast.unit)} (95 % interval "
        f"{_size(low, contrast.unit, bare=True)} to "
        f"{_size(high, contrast.unit)}, {contrast.n} rows, {_seeds(contrast)}, "
        f"p {contrast.p_adjusted:.2g} after correction)"
    )


def _seeds(contrast: Contrast) -> str:
    return "1 seed" if contrast.seeds == 1 else f"{contrast.seeds} seeds"


def _size(value: float, unit: str, *, bare: bool = False) -> str:
    if unit == FRACTION:
        return f"{100 * value:+.1f}" + ("" if bare else " points")
    return f"{value:+.3g}" + ("" if bare else f" {unit}")
