"""Joules that the processor took, where the machine tells without being asked as root.

Linux counts them per package (RAPL). A Mac tells the superuser only, so they are unknown
there. What runs beside us on the same processor is counted too.
"""

from __future__ import annotations

from pathlib import Path

COUNTERS = Path("/sys/class/powercap")
PACKAGE = "intel-rapl:[0-9]*"


class Meter:
    """Counts from when it is made.

    Args:
        folder: Where the kernel shows its counters.
    """

    def __init__(self, folder: Path = COUNTERS) -> None:
        self._folder = folder
        self._before = _readings(folder)

    def joules(self, but: float = 0.0) -> float | None:
        """Since the beginning, without ``but``; None if unknown or begun anew."""
        now = _readings(self._folder)
        if not now or set(now) != set(self._before):
            return None
        taken = [now[name] - self._before[name] for name in now]
        return sum(taken) / 1e6 - but if min(taken) >= 0 else None


def _readings(folder: Path) -> dict[str, int]:
    """Microjoules by package; its parts, which it includes, have a second colon."""
    found: dict[str, int] = {}
    for package in sorted(folder.glob(PACKAGE)):
        if package.name.count(":") > 1:
            continue
        try:
            text = (package / "energy_uj").read_text(encoding="ascii")
        except OSError:
            return {}
        found[package.name] = int(text)
    return found
