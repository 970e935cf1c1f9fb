"""Whether a laptop had better rest: how full its battery is, and whether it is too hot.

A Mac tells both by ``pmset``, Linux the battery by files. What cannot be told is no
reason to rest: a machine without a battery, or without these, just goes on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
PATIENCE_S = 10
LEVELS = range(1, 255)
"""Thermal warnings of IOPM.h: 0 is none, 255 unknown, all between are one."""
HELD_BACK = 50
"""A processor that may run at less than this share of its speed is too hot, percent."""

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Power:
    """How the machine stands.

    Attributes:
        battery: Its charge, percent, while nothing else feeds the machine; else None.
        heat: What the system says of too much heat; empty if it says nothing.
    """

    battery: float | None = None
    heat: str = ""

    def why_rest(self, floor: int) -> str:
        """Why work had better wait; empty if it need not.

        Args:
            floor: The charge, percent, below which it waits for the charger.
        """
        if self.battery is not None and self.battery < floor:
            return f"the battery is at {self.battery:.0f} %, below {floor} %"
        return self.heat


def _ask(command: Sequence[str]) -> str:
    """What a program of the system says; nothing if it is not there or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout


def now(ask: Ask = _ask, supplies: Path = SUPPLIES) -> Power:
    """How this machine stands at present.

    Args:
        ask: Runs a program of the system and gives what it says.
        supplies: Where Linux shows its batteries.
    """
    battery = _of_pmset(ask(["pmset", "-g", "batt"]))
    if battery is None:
        battery = _of_files(supplies)
    return Power(battery, _heat(ask(["pmset", "-g", "therm"])))


def _of_pmset(said: str) -> float | None:
    """The charge in ``pmset -g batt``, if the machine draws from its battery."""
    if "drawing from 'Battery Power'" not in said:
        return None
    charge = re.search(r"InternalBattery\S*.*?(\d+)%", said)
    return float(charge[1]) if charge else None


def _heat(said: str) -> str:
    """What ``pmset -g therm`` warns of."""
    values = dict(re.findall(r"^\s*(\w[\w ]*?)\s*=\s*(\d+)", said, re.MULTILINE))
    named = {name.replace(" ", "_").lower(): int(n) for name, n in values.items()}
    level = named.get("thermal_warning_level", 0)
    if level in LEVELS:
        return f"the system warns of heat, level {level}"
    speed = named.get("cpu_speed_limit", 100)
    if speed < HELD_BACK:
        return f"heat holds the processor at {speed} % of its speed"
    return ""


def _of_files(folder: Path) -> float | None:
    """The mean charge of the batteries that Linux shows, if one of them is drained."""
    held: list[tuple[str, float]] = []
    for supply in sorted(folder.glob("*")):
        is_own = _read(supply / "scope") != "Device"  # those are of mice and pens
        charge = _read(supply / "capacity")
        if _read(supply / "type") == "Battery" and is_own and charge.isdigit():
            held.append((_read(supply / "status"), float(charge)))
    if not any(status == "Discharging" for status, _ in held):
        return None
    return sum(charge for _, charge in held) / len(held)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
