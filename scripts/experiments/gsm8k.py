"""Grade-school word problems with worked answers: for models that can do some of them.

    python scripts/experiments/gsm8k.py convert SOURCE ROWS
    python scripts/experiments/gsm8k.py compare ROWS --model PATH --train 2000 --out DIR
    python scripts/experiments/gsm8k.py compare ROWS --model PATH --out DIR --estimate

SOURCE is ``grade_school_math/data/`` of https://github.com/openai/grade-school-math (MIT
licence): ``train.jsonl`` and ``test.jsonl`` with ``question`` and ``answer``. A model of 135M
solves one in a hundred, so nothing tells objectives apart there. The rows stay where you put
them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import study
from study import Study

from mlx_rsft import files
from mlx_rsft.errors import DataError, RsftError

VALID = 200
"""Training rows kept back, to choose learning rates by."""
SETTINGS: Mapping[str, object] = {
    "adapter.layers": "all",
    "adapter.rank": 16,
    "training.batch_size": 32,
    "evaluation.metrics": ["numeric", "nll"],
    "evaluation.max_tokens": 320,
}


def main() -> None:
    """Convert the source, or compare on what was converted."""
    asked = read_arguments(sys.argv[1:])
    if asked.do == "convert":
        convert(asked.source, asked.rows)
    else:
        print("\n".join(study.told(made(asked), asked)))


def read_arguments(words: Iterable[str]) -> argparse.Namespace:
    """What the command line asks for."""
    return study.read_arguments(words, __doc__, steps=200)


def made(asked: argparse.Namespace) -> Study:
    """Rates are chosen on training rows that are kept back."""
    cuts = {
        "train": ("train", 0, asked.train),
        "valid": ("train", asked.train, asked.train + VALID),
        "test": ("test", 0, asked.tests),
    }
    question = f"Trained on {asked.train} worked answers, how many problems are solved?"
    return Study("gsm8k", question, cuts, SETTINGS)


def convert(source: Path, rows: Path) -> None:
    """The source's files as rows of a prompt and an answer.

    Raises:
        DataError: If a file is not there.
    """
    with files.new_folder(rows) as scratch:
        for split in ("train", "test"):
            place = source / f"{split}.jsonl"
            if not place.exists():
                raise DataError("The file is not there.", where=str(place))
            with place.open(encoding="utf-8") as lines:
                read = map(json.loads, filter(str.strip, lines))
                made = [
                    {
                        "id": f"{split}-{n}",
                        "prompt": one["question"],
                        "completion": one["answer"],
                    }
                    for n, one in enumerate(read)
                ]
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made)
            files.write_text(scratch / f"{split}.jsonl", text)


if __name__ == "__main__":
    try:
        main()
    except RsftError as problem:
        sys.exit(str(problem))
