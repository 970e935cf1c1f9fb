"""Numbers for eyes: rounded as far as they mean something, with their unit."""

from __future__ import annotations

from mlx_rsft.report.comparison import Difference
from mlx_rsft.report.words import Words

UNKNOWN = "–"
FRACTION = "fraction"
GIB = 1 << 30
MIB = 1 << 20


def number(value: float | None, unit: str = "") -> str:
    """A value without its unit; fractions in percent."""
    if value is None:
        return UNKNOWN
    if unit == FRACTION:
        return _minus(f"{100 * value:.1f}")
    if value and not 0.001 <= abs(value) < 1e6:
        return _minus(f"{value:.2e}")
    digits = 3 if abs(value) < 10 else 1
    return _minus(f"{value:,.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, unit: str = "") -> str:
    """A difference without its unit; fractions in points of percent."""
    if value is None:
        return UNKNOWN
    shown = number(value, unit)
    return f"+{shown}" if value > 0 else shown


def with_unit(say: Words, value: float | None, unit: str) -> str:
    """A value and its unit."""
    if value is None:
        return UNKNOWN
    if unit == FRACTION:
        return f"{number(value, unit)}\N{NO-BREAK SPACE}%"
    named = say.known(f"unit.{unit}", unit)
    return f"{number(value, unit)} {named}".rstrip()


def in_points(say: Words, value: float | None, unit: str) -> str:
    """A difference and its unit."""
    if value is None:
        return UNKNOWN
    if unit == FRACTION:
        return say("points", value=signed(value, unit))
    named = say.known(f"unit.{unit}", unit)
    return f"{signed(value, unit)} {named}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends of an interval in brackets; empty if it is unknown."""
    if low is None or high is None:
        return ""
    return f"[{number(low, unit)}, {number(high, unit)}]"


def signed_interval(found: Difference, unit: str) -> str:
    """Both ends of a difference's interval in brackets; empty if it is unknown."""
    if found.low is None or found.high is None:
        return ""
    return f"[{signed(found.low, unit)}, {signed(found.high, unit)}]"


def p_value(value: float | None) -> str:
    """A probability of error; very small ones as a bound."""
    if value is None:
        return UNKNOWN
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def seconds(say: Words, value: float | None) -> str:
    """A time in the units people say it in."""
    if value is None:
        return UNKNOWN
    if value < 90:
        return say("seconds", s=f"{value:.1f}")
    whole = round(value)
    if whole < 5400:
        return say("minutes", m=str(whole // 60), s=str(whole % 60))
    return say("hours", h=str(whole // 3600), m=str(whole % 3600 // 60))


def memory(value: float | None) -> str:
    """Bytes as GiB or MiB."""
    if value is None:
        return UNKNOWN
    if value >= GIB:
        return f"{value / GIB:.2f} GiB"
    return f"{value / MIB:.0f} MiB"


def energy(value: float | None) -> str:
    """Joules as Wh, the unit on the bill."""
    return UNKNOWN if value is None else f"{value / 3600:.2f} Wh"


def count(value: float | None) -> str:
    """A whole number, in groups of three."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def times(value: float | None, of: float | None) -> str:
    """A ratio."""
    if value is None or not of:
        return UNKNOWN
    return f"{value / of:.2f}×"


def short(value: float | None, unit: str = "") -> str:
    """A value in a plot, where there is little room."""
    if value is None:
        return UNKNOWN
    if unit == FRACTION:
        return _minus(f"{100 * value:.3g}%")
    return _minus(f"{value:.3g}")


def short_signed(value: float, unit: str = "") -> str:
    """A round difference at an axis."""
    shown = _minus(f"{100 * value if unit == FRACTION else value:.4g}")
    return f"+{shown}" if value > 0 else shown
