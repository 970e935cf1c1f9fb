"""Try the hypotheses, each in a file of its own, and print what was found as Markdown.

    ./scripts/experiments/run T0 --out DIR           all of the smallest size
    ./scripts/experiments/run T1 --out DIR           the two real models
    ./scripts/experiments/run T0 --out DIR --check RESULTS.md
    ./scripts/experiments/run H2 H5 --tier T1 --out DIR
    ./scripts/experiments/run T1 --estimate --out DIR    how long it would take here

Where mlx computes on the CPU, several experiments run at once, a core each. Results are kept
as JSON in DIR; stopped, the same command goes on. The figures of an experiment:
``mlx-rsft report DIR/H2/tiny/arms``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import apart
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
import reader
import showing
import tiers
import time_to_learn
from experiment import Experiment
from tiers import READER, TIERS

from mlx_rsft import files, lanes
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
    made = [EXPERIMENTS[name] for name in names if name in EXPERIMENTS]
    if asked.estimate:
        for one in made:
            print("\n".join(estimate.lines(one, size, asked.out)))
        return
    document = asked.check.read_text(encoding="utf-8") if asked.check else ""
    _carry_out_apart(made, size, asked)
    problems: list[str] = []
    for name in names:
        told = (
            toy(name, asked.out)
            if name in TOYS
            else tried(name, size, asked.out, asked.model)
        )
        print("\n".join(told.lines), flush=True)
        problems += told.check(document) if asked.check else []
    if problems:
        raise CheckFailed("\n".join(problems), where=str(asked.check))


def _carry_out_apart(
    made: Sequence[Experiment], size: str, asked: argparse.Namespace
) -> None:
    """Where several can run at once, do all that is missing; else leave it."""
    todo = apart.pieces(made, size, asked.model, asked.out)
    if len(todo) < 2 or lanes.count() < 2:
        return
    began, reporter = time.monotonic(), TerminalReporter()
    if any(tier.model == READER for tier in TIERS[size]):
        reader.made(asked.out)
    apart.carry_out(todo, asked.out, reporter)
    reporter.note(f"all: {time.monotonic() - began:.0f} s")


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
    labels = [tier.label for tried in TIERS.values() for tier in tried]
    parser.add_argument("--model", choices=labels, help="only this one of the tier")
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


def tried(name: str, size: str, out: Path, model: str | None = None) -> Told:
    """Carry an experiment out on every model of a size, or on one."""
    made, reporter = EXPERIMENTS[name], TerminalReporter()
    found = [
        experiment.carry_out(made, size, tier, out, reporter)
        for tier in tiers.of(size, name, model)
    ]

    def check(document: str) -> list[str]:
        return [line for one in found for line in checking.claims(one, document)]

    return Told(showing.experiment(found), check)


if __name__ == "__main__":
    try:
        main()
    except RsftError as problem:
        sys.exit(str(problem))
