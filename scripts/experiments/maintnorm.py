"""Maintenance notes of three companies: what a real shift costs, and what corrects it.

    python scripts/experiments/maintnorm.py convert SOURCE ROWS
    python scripts/experiments/maintnorm.py replace ROWS
    python scripts/experiments/maintnorm.py compare ROWS --train 400 --out DIR
    python scripts/experiments/maintnorm.py compare ROWS --train 3200 --out DIR --estimate

SOURCE is ``data/`` of https://github.com/nlp-tlp/maintnorm (MIT licence): 12,000 notes that
people normalised word by word. ROWS gets ``train_a.jsonl`` to ``test_c.jsonl``. Training is
on company A, rates are chosen on A's validation rows, tests are of A, B and C. The rows stay
where you put them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import claims as claiming
import estimate
import experiment
import showing
from maintnorm_tokens import FIGURES, Counts, aligned, counts

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.cli.console import TerminalReporter
from mlx_rsft.config import FLAG, Layer, Resolved
from mlx_rsft.errors import DataError, RsftError
from mlx_rsft.objectives import build
from mlx_rsft.workflows.compare import Request

COMPANIES = "abc"
SPLITS = {"train": "train", "val": "valid", "test": "test"}
ASKED = (
    "Write this maintenance note in plain words. Mask identifiers, numbers, dates and "
    "sensitive terms.\n"
)
STAGED = "dft:floor=0.1,schedule=staged,until=0.5"
ARMS = ("sft", "dft", "dft:floor=0.1", STAGED)
WRITES = "generated_exact_match"
"""For it answers are written, of which words are counted."""
SETTINGS: dict[str, object] = {
    "adapter.layers": "last:8",
    "adapter.rank": 16,
    "training.batch_size": 8,
    "evaluation.metrics": ["exact_match", "nll", WRITES],
    "evaluation.max_tokens": 48,
}
TESTS = {"test": "a", "b": "b", "c": "c"}
"""The company that each test split is of."""


def main() -> None:
    """Convert the source, or compare on what was converted."""
    asked = read_arguments(sys.argv[1:])
    if asked.do == "convert":
        convert(asked.source, asked.rows)
    elif asked.do == "replace":
        print("\n".join(replaced(asked.rows)))
    elif asked.estimate:
        resolved = settings(asked, gathered(asked))
        chosen = arms(asked, prior(asked, resolved))
        print(estimate.told(resolved, chosen, asked.seeds, 1))
    else:
        print("\n".join(compared(asked)))


def read_arguments(words: Iterable[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="do", required=True)
    converting = what.add_parser("convert")
    converting.add_argument("source", type=Path)
    converting.add_argument("rows", type=Path)
    replacing = what.add_parser("replace")
    replacing.add_argument("rows", type=Path)
    comparing = what.add_parser("compare")
    comparing.add_argument("rows", type=Path)
    comparing.add_argument("--out", type=Path, required=True)
    comparing.add_argument("--train", type=int, default=400, help="rows of company A")
    comparing.add_argument("--tests", type=int, default=150, help="rows per test")
    comparing.add_argument("--steps", type=int, default=100)
    comparing.add_argument("--seeds", type=int, default=3)
    comparing.add_argument("--rate", type=float, default=1e-3)
    comparing.add_argument("--model", default="demo")
    comparing.add_argument("--arm", action="append", help="instead of the usual ones")
    comparing.add_argument("--estimate", action="store_true", help="time a step only")
    return parser.parse_args(list(words))


def convert(source: Path, rows: Path) -> None:
    """The source's files, a word and its norm a line, as rows of a prompt and an answer.

    Raises:
        DataError: If a file is not there.
    """
    with files.new_folder(rows) as scratch:
        for company in COMPANIES:
            for theirs, ours in SPLITS.items():
                place = source / f"company_{company}" / f"{theirs}.norm"
                if not place.exists():
                    raise DataError("The file is not there.", where=str(place))
                notes = place.read_text(encoding="utf-8").split("\n\n")
                made = [
                    row(note, f"{company}-{ours}-{n}", company)
                    for n, note in enumerate(filter(str.strip, notes))
                ]
                lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in made]
                files.write_text(scratch / f"{ours}_{company}.jsonl", "".join(lines))


def row(note: str, name: str, company: str) -> dict[str, Any]:
    """One note: its raw words as the question, their norms as the answer."""
    pairs = [line.split("\t") for line in note.strip("\n").split("\n")]
    return {
        "id": name,
        "tags": [f"company-{company}"],
        "prompt": ASKED + " ".join(raw for raw, _ in pairs),
        "completion": " ".join(norm for _, norm in pairs if norm),
    }


def gathered(asked: argparse.Namespace) -> Path:
    """A folder of splits: A's rows to train on and to choose by, tests of all three."""
    folder = asked.out / "data"
    if folder.exists():
        return folder
    wanted = {"train": ("train_a", asked.train), "valid": ("valid_a", 100)}
    wanted |= {file(split): (f"test_{of}", asked.tests) for split, of in TESTS.items()}
    with files.new_folder(folder) as scratch:
        for split, (name, most) in wanted.items():
            text = (asked.rows / f"{name}.jsonl").read_text(encoding="utf-8")
            lines = text.splitlines(keepends=True)[:most]
            files.write_text(scratch / f"{split}.jsonl", "".join(lines))
    return folder


def file(split: str) -> str:
    """The name of a test split's file, without its ending."""
    return split if split == "test" else f"test_{split}"


def settings(asked: argparse.Namespace, folder: Path) -> Resolved:
    """What every run is set to."""
    given = {
        "model.source": asked.model,
        "data.source": str(folder),
        "optimizer.learning_rate": asked.rate,
        "training.steps": asked.steps,
        **SETTINGS,
    }
    return configuration.resolve([Layer(FLAG, given)])


def prior(asked: argparse.Namespace, resolved: Resolved) -> dict[str, Any]:
    """What ``auto`` finds of the training rows and chooses; found once, then kept."""
    place = asked.out / "prior.json"
    if not place.exists():
        files.write_json(place, experiment.probed(resolved, TerminalReporter()))
    return json.loads(place.read_text(encoding="utf-8"))


def arms(asked: argparse.Namespace, known: dict[str, Any]) -> list[str]:
    """The arms, and what ``auto`` chooses for these rows if it is none of them."""
    auto = str(build({"name": known["objective"]}))
    return asked.arm or list(dict.fromkeys([*ARMS, auto]))


def compared(asked: argparse.Namespace) -> list[str]:
    """Train, measure, and say it as Markdown; what is there is not done again."""
    began, reporter = time.perf_counter(), TerminalReporter()
    resolved = settings(asked, gathered(asked))
    known = prior(asked, resolved)
    chosen = arms(asked, known)
    out = asked.out / "arms"
    request = Request(chosen, out, asked.seeds, tune_rate=True, every=asked.steps)
    rates, reached = experiment.compared(resolved, request, reporter)
    for arm in reached:
        low = arm == experiment.LOW
        runs = [
            experiment.run_folder(asked.out / "low", experiment.PLAIN, seed, None)
            if low
            else experiment.run_folder(out, arm, seed, rates[arm])
            for seed in range(asked.seeds)
        ]
        _add_tokens(reached[arm], resolved, runs)
    against = experiment.judged(experiment.against_plain(reached), reached)
    found = {
        "name": "maintnorm",
        "question": f"Trained on {asked.train} notes of company A, what of A, B and C?",
        "model": asked.model,
        "steps": asked.steps,
        "seeds": asked.seeds,
        "rates": rates,
        "means": experiment.means(reached),
        "prior": known,
        **against,
        "against": against["claims"],
        "seconds": time.perf_counter() - began,
    }
    files.write_json(asked.out / experiment.FOUND, found)
    return showing.experiment([found])


def _add_tokens(
    reached: dict[str, Any], resolved: Resolved, runs: Sequence[Path]
) -> None:
    """Precision, recall and error reduction of one arm, from the answers of its runs."""
    for split in TESTS:
        notes = _read(Path(resolved.config.data.source) / f"{file(split)}.jsonl")
        seeds: list[list[Counts]] = []
        for run in runs:
            scores = json.loads((run / "scores" / f"{split}.json").read_text("utf-8"))
            answers = zip(notes, scores["answers"], strict=True)
            seeds.append([_counted(note, written) for note, written in answers])
        reached[split] |= {
            name: [figure(held) for held in seeds] for name, figure in FIGURES.items()
        }


def _read(place: Path) -> list[dict[str, Any]]:
    with place.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _counted(note: dict[str, Any], written: str) -> Counts:
    return counts(" ".join(_words(note)), note["completion"], written)


def replaced(rows: Path) -> list[str]:
    """The source's simplest baseline, of every company on every company."""
    lines: list[list[str]] = []
    for trained in COMPANIES:
        stands = _replacements(_read(rows / f"train_{trained}.jsonl"))
        for tested in COMPANIES:
            held = [
                _counted(
                    note, " ".join(stands.get(word, word) for word in _words(note))
                )
                for note in _read(rows / f"test_{tested}.jsonl")
            ]
            means = [
                claiming.mean([figure(held)], name) for name, figure in FIGURES.items()
            ]
            lines.append([trained, tested, *map(showing.mean, means)])
    return showing.table(["trained on", "tested on", *FIGURES], lines)


def _replacements(notes: Sequence[dict[str, Any]]) -> dict[str, str]:
    """For each raw word what stood for it most often."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for note in notes:
        words, right = _words(note), note["completion"].split()
        for word, (begin, end) in zip(words, aligned(words, right), strict=True):
            seen[word][" ".join(right[begin:end])] += 1
    return {word: stood.most_common(1)[0][0] for word, stood in seen.items()}


def _words(note: dict[str, Any]) -> list[str]:
    return note["prompt"].removeprefix(ASKED).split()


if __name__ == "__main__":
    try:
        main()
    except RsftError as problem:
        sys.exit(str(problem))
