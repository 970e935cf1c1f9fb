"""What four arms cost over one, end to end, on the demo.

    python scripts/bench_compare.py [--steps 40] [--rows 320] [--test-rows 96]

Each line is one process of ``mlx-rsft compare`` with one seed, loading and scoring
included: one arm as a trainer without the cache of frozen blocks would do it, the same
with the cache, and four arms that share it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ARMS = ("sft", "dft", "dft:floor=0.1", "dft:schedule=staged")
AIM = 2.2


def main() -> None:
    """Print the seconds of each and their ratios."""
    parser = argparse.ArgumentParser(description="Time one arm and four.")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--test-rows", type=int, default=96)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = ("--train-rows", asked.rows, "--test-rows", asked.test_rows)
        _seconds("data", "demo", folder / "data", *sizes, "--wrong-labels", 0.3)
        common = ("--data", folder / "data", "--steps", asked.steps)
        plain = _compared(folder / "plain", ARMS[:1], *common, "--trunk-cache", "off")
        one = _compared(folder / "one", ARMS[:1], *common)
        four = _compared(folder / "four", ARMS, *common)
    print(f"one arm, nothing kept      {plain:7.1f} s")
    print(f"one arm, frozen part kept  {one:7.1f} s")
    print(f"four arms, shared          {four:7.1f} s")
    print(f"four over one, nothing kept      {four / plain:.2f}  (aimed at: {AIM})")
    print(f"four over one, frozen part kept  {four / one:.2f}")


def _compared(out: Path, arms: tuple[str, ...], *more: object) -> float:
    named = [word for arm in arms for word in ("--arm", arm)]
    model = ("--model", "demo", "--layers", "last:6", "--rank", 16)
    return _seconds("compare", *named, *model, "--seeds", 1, "--out", out, *more)


def _seconds(*words: object) -> float:
    began = perf_counter()
    command = [sys.executable, "-m", "mlx_rsft", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - began


if __name__ == "__main__":
    main()
