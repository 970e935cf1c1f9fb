"""Maintenance notes of three companies: what a real shift costs, and what corrects it.

    python scripts/experiments/maintnorm.py convert SOURCE ROWS
    python scripts/experiments/maintnorm.py replace ROWS [--train 400] [--tests 150]
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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import claims as claiming
import showing
import study
from maintnorm_tokens import FIGURES, REDUCTION, Counts, aligned, counts
from study import Study

from mlx_rsft import files
from mlx_rsft.errors import DataError, RsftError
from mlx_rsft.evaluation.values import Values

COMPANIES = "abc"
SPLITS = {"train": "train", "val": "valid", "test": "test"}
ASKED = (
    "Write this maintenance note in plain words. Mask identifiers, numbers, dates and "
    "sensitive terms.\n"
)
WRITES = "generated_exact_match"
"""For it answers are written, of which words are counted."""
SETTINGS: Mapping[str, object] = {
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
        print("\n".join(replaced(asked.rows, asked.train, asked.tests)))
    else:
        print("\n".join(study.told(made(asked), asked)))


def read_arguments(words: Iterable[str]) -> argparse.Namespace:
    """What the command line asks for."""
    return study.read_arguments(words, __doc__, steps=100, more=["replace"])


def made(asked: argparse.Namespace) -> Study:
    """Trained on company A, tested on all three."""
    cuts = {"train": ("train_a", 0, asked.train), "valid": ("valid_a", 0, 64)}
    cuts |= {file(split): (f"test_{of}", 0, asked.tests) for split, of in TESTS.items()}
    question = f"Trained on {asked.train} notes of company A, what of A, B and C?"
    return Study("maintnorm", question, cuts, SETTINGS, _words_of, [REDUCTION])


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


def file(split: str) -> str:
    """The name of a test split's file, without its ending."""
    return split if split == "test" else f"test_{split}"


def _words_of(
    data: Path, runs: Sequence[Path]
) -> Mapping[str, Mapping[str, list[Values]]]:
    """Precision, recall and error reduction of one arm, from the answers of its runs."""
    found: dict[str, dict[str, list[Values]]] = {}
    for split in TESTS:
        notes = _read(data / f"{file(split)}.jsonl")
        seeds: list[list[Counts]] = []
        for run in runs:
            scores = json.loads((run / "scores" / f"{split}.json").read_text("utf-8"))
            answers = zip(notes, scores["answers"], strict=True)
            seeds.append([_counted(note, written) for note, written in answers])
        found[split] = {
            n: [figure(held) for held in seeds] for n, figure in FIGURES.items()
        }
    return found


def _read(place: Path) -> list[dict[str, Any]]:
    with place.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _counted(note: dict[str, Any], written: str) -> Counts:
    return counts(" ".join(_words(note)), note["completion"], written)


def replaced(rows: Path, train: int | None, tests: int | None) -> list[str]:
    """The source's simplest baseline, of every company on every company.

    Args:
        rows: The folder of them.
        train: So many training rows, from the first on; None: all.
        tests: The same of the rows of each test.
    """
    lines: list[list[str]] = []
    for trained in COMPANIES:
        stands = _replacements(_read(rows / f"train_{trained}.jsonl")[:train])
        for tested in COMPANIES:
            held = [
                _counted(
                    note, " ".join(stands.get(word, word) for word in _words(note))
                )
                for note in _read(rows / f"test_{tested}.jsonl")[:tests]
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
