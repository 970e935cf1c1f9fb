"""A comparison on rows from somewhere else: which splits, which arms, what of each.

OUT/  data/       the splits, cut from the rows
      prior.json  what ``--objective auto`` finds and chooses
      arms/ low/  as every experiment has them
      found.json  means, differences from plain SFT, cost

What is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import estimate
import experiment
import showing

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.cli.console import TerminalReporter
from mlx_rsft.config import FLAG, Layer, Resolved
from mlx_rsft.errors import DataError
from mlx_rsft.evaluation.values import Values
from mlx_rsft.objectives import build
from mlx_rsft.workflows.compare import Request

ARMS = ("sft", "dft", "dft:floor=0.1")

Cut = tuple[str, int, int]
"""A file of the rows without its ending, and from which line up to which."""
More = Callable[[Path, Sequence[Path]], Mapping[str, Mapping[str, list[Values]]]]
"""From a study's splits and the runs of an arm to further metrics, by split."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared.

    Attributes:
        cuts: By the name of a split's file.
        settings: Of every run, by full key; the first metric chooses and decides.
        more: Metrics of what the runs have written.
        judged: Those of them on which arms are held against each other as well.
    """

    name: str
    question: str
    cuts: Mapping[str, Cut]
    settings: Mapping[str, object]
    more: More = lambda _data, _runs: {}
    judged: Sequence[str] = ()

    @property
    def decides(self) -> str:
        """The metric that arms are held against each other by."""
        metrics = self.settings["evaluation.metrics"]
        assert isinstance(metrics, list), "a study names its metrics"
        return str(metrics[0])


def read_arguments(
    words: Iterable[str], about: str | None, *, steps: int, more: Sequence[str] = ()
) -> argparse.Namespace:
    """What a study's command line asks for.

    Args:
        words: The command line, without the program.
        about: The program's docstring.
        steps: Of a run, unless told otherwise.
        more: Further commands, which take the rows, and how many; all, unless told.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="do", required=True)
    converting = what.add_parser("convert")
    converting.add_argument("source", type=Path)
    converting.add_argument("rows", type=Path)
    for name in more:
        further = what.add_parser(name)
        further.add_argument("rows", type=Path)
        further.add_argument("--train", type=int, help="training rows")
        further.add_argument("--tests", type=int, help="rows per test")
    _add_options(what.add_parser("compare"), steps)
    return parser.parse_args(list(words))


def _add_options(parser: argparse.ArgumentParser, steps: int) -> None:
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=400, help="training rows")
    parser.add_argument("--tests", type=int, default=150, help="rows per test")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--arm", action="append", help="instead of the usual ones")
    parser.add_argument("--estimate", action="store_true", help="time a step only")


def told(study: Study, asked: argparse.Namespace) -> list[str]:
    """The results as Markdown; or how long it would take, if that is what is asked."""
    resolved = _settings(study, asked)
    known = _prior(asked.out, resolved)
    # What auto chooses is an arm, if it is none of them already.
    auto = str(build({"name": known["objective"]}))
    arms = asked.arm or list(dict.fromkeys([*ARMS, auto]))
    if asked.estimate:
        return [estimate.told(resolved, arms, asked.seeds, 1)]
    return _compared(study, asked, resolved, arms, known)


def _settings(study: Study, asked: argparse.Namespace) -> Resolved:
    given = {
        "model.source": asked.model,
        "data.source": str(_gathered(study, asked)),
        "optimizer.learning_rate": asked.rate,
        "training.steps": asked.steps,
        **study.settings,
    }
    return configuration.resolve([Layer(FLAG, given)])


def _gathered(study: Study, asked: argparse.Namespace) -> Path:
    """The folder of splits; cut once, then kept."""
    folder = asked.out / "data"
    if folder.exists():
        return folder
    with files.new_folder(folder) as scratch:
        for split, (name, begin, end) in study.cuts.items():
            place = asked.rows / f"{name}.jsonl"
            if not place.exists():
                raise DataError("The file is not there.", where=str(place))
            lines = place.read_text(encoding="utf-8").splitlines(keepends=True)
            # An answer of nothing cannot be learned, and rows of it are refused.
            told = [one for one in lines[begin:end] if json.loads(one)["completion"]]
            files.write_text(scratch / f"{split}.jsonl", "".join(told))
    return folder


def _prior(out: Path, resolved: Resolved) -> dict[str, Any]:
    """What ``auto`` finds of the training rows and chooses; found once, then kept."""
    place = out / "prior.json"
    if not place.exists():
        files.write_json(place, experiment.probed(resolved, TerminalReporter()))
    return json.loads(place.read_text(encoding="utf-8"))


def _compared(
    study: Study,
    asked: argparse.Namespace,
    resolved: Resolved,
    arms: Sequence[str],
    known: Mapping[str, Any],
) -> list[str]:
    began, out = time.perf_counter(), asked.out / "arms"
    request = Request(arms, out, asked.seeds, tune_rate=True, every=asked.steps)
    rates, reached = experiment.compared(resolved, request, TerminalReporter())
    for arm in reached:
        low = arm == experiment.LOW
        runs = [
            experiment.run_folder(asked.out / "low", experiment.PLAIN, seed, None)
            if low
            else experiment.run_folder(out, arm, seed, rates[arm])
            for seed in range(asked.seeds)
        ]
        for split, values in study.more(asked.out / "data", runs).items():
            reached[arm][split] |= values
    against = experiment.against_plain(reached, study.decides)
    further = [
        claim
        for metric in study.judged
        for claim in experiment.against_plain(reached, metric)
    ]
    found = {
        "name": study.name,
        "question": study.question,
        "model": asked.model,
        "steps": asked.steps,
        "seeds": asked.seeds,
        "prior": known,
        **experiment.results(rates, reached, [*against, *further], against),
        "seconds": time.perf_counter() - began,
    }
    files.write_json(asked.out / experiment.FOUND, found)
    return showing.experiment([found])
