"""Try the hypotheses, each in a file of its own, and print what was found as Markdown.

    ./scripts/experiments/run T0 --out DIR           all of the smallest size
    ./scripts/experiments/run T1 --out DIR           the two real models
    ./scripts/experiments/run T0 --out DIR --check RESULTS.md
    ./scripts/experiments/run H2 H5 --tier T1 --out DIR
    ./scripts/experiments/run T1 --estimate --out DIR    how long it would take here

Results are kept as JSON in DIR; stopped, the same command goes on. The figures of an
experiment: ``mlx-rsft report DIR/H2/tiny/arms``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import checking
import estimate
import experiment
import h1_strong_prior
import h2_facts
import h3_wrong_labels
import h4_format
import h5_drift
import h6_diversity
import h7_sharpening
import showing
import tiers
import time_to_learn
from experiment import Experiment
from tiers import TIERS

from mlx_rsft import files
from mlx_rsft.cli.console import TerminalReporter
from mlx_rsft.errors import CheckFailed, RsftError

TOYS: dict[str, ModuleType] = {"H7": h7_sharpening, "time": time_to_learn}
EXPERIMENTS: dict[str, Experiment] = {
    made.name: made
    for made in (
        h1_strong_prior.EXPERIMENT,
        h2_facts.EXPERIMENT,
        h3_wrong_labels.EXPERIMENT,
        h4_format.EXPERIMENT,
        h5_drift.EXPERIMENT,
        h6_diversity.EXPERIMENT,
    )
}


def main() -> None:
    """Carry out what is named and print it as Markdown."""
    asked = _asked()
    names = [name for name in asked.what if name not in TIERS]
    size = next((name for name in asked.what if name in TIERS), asked.tier)
    names = names or [*EXPERIMENTS, *(TOYS if size == "T0" else ())]
    if asked.estimate:
        for name in filter(EXPERIMENTS.__contains__, names):
            print("\n".join(estimate.lines(EXPERIMENTS[name], size, asked.out)))
        return
    document = asked.check.read_text(encoding="utf-8") if asked.check else ""
    problems: list[str] = []
    for name in names:
        told = toy(name, asked.out) if name in TOYS else tried(name, size, asked.out)
        print("\n".join(told.lines), flush=True)
        problems += told.check(document) if asked.check else []
    if problems:
        raise CheckFailed("\n".join(problems), where=str(asked.check))


@dataclass(frozen=True, slots=True)
class Told:
    """What is printed of an experiment, and how a document is held to it."""

    lines: Sequence[str]
    check: Callable[[str], list[str]]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*TIERS, *EXPERIMENTS, *TOYS]
    parser.add_argument("what", nargs="+", choices=known, metavar="|".join(known))
    parser.add_argument("--tier", choices=list(TIERS), default="T0")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--check", type=Path, help="a document that prints the results")
    parser.add_argument("--estimate", action="store_true", help="time steps only")
    return parser.parse_args()


def toy(name: str, out: Path) -> Told:
    """Measure a toy, keep it, and say what was found."""
    found = TOYS[name].measure()
    files.write_json(out / name / experiment.FOUND, found)
    table = showing.table(*TOYS[name].table(found))
    lines = [f"**{name}: {found['verdict']}.**", "", *table, ""]
    return Told(lines, lambda document: checking.rows(table, document))


def tried(name: str, size: str, out: Path) -> Told:
    """Carry an experiment out on every model of a size."""
    made, reporter = EXPERIMENTS[name], TerminalReporter()
    found = [
        experiment.carry_out(made, size, tier, out, reporter)
        for tier in tiers.of(size, name)
    ]

    def check(document: str) -> list[str]:
        return [line for one in found for line in checking.claims(one, document)]

    return Told(showing.experiment(found), check)


if __name__ == "__main__":
    try:
        main()
    except RsftError as problem:
        sys.exit(str(problem))
