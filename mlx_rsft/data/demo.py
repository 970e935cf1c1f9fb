"""Demo data: tired technicians' notes, answered by ``defect: ...; action: ...``.

The action follows from the defect; times, stations, lots and remarks say nothing.
Besides notes like the trained ones there are two shifts: parts and stations never
trained on, and words never trained on. What to choose by has shifted likewise, but with
other parts and words than what is tested on. A dial mislabels a share of the training rows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from mlx_rsft import files
from mlx_rsft.data import splits
from mlx_rsft.data.demo_validation import OTHER_PARTS, OTHER_PHRASINGS
from mlx_rsft.data.demo_words import (
    ACTIONS,
    NEW_PARTS,
    NEW_PHRASINGS,
    REMARKS,
    TRAINED,
    Wording,
)
from mlx_rsft.errors import ConfigError, RunError, raise_together

INSTRUCTION = "Name the defect and the action for this shop floor note:"
VALID_ROWS = 48
SPLITS = {
    "test": TRAINED,
    "test_new_parts": NEW_PARTS,
    "test_new_phrasings": NEW_PHRASINGS,
    "valid": TRAINED,
    "valid_new_parts": OTHER_PARTS,
    "valid_new_phrasings": OTHER_PHRASINGS,
    "train": TRAINED,  # last, so that its size never changes the others
}


def write_demo(
    folder: Path,
    *,
    train_rows: int = 320,
    test_rows: int = 96,
    wrong_labels: float = 0.0,
    seed: int = 0,
) -> dict[str, int]:
    """Write seven splits of demo data as ``SPLIT.jsonl``, all of them or none.

    The tests and the valid splits are the same whatever ``train_rows`` and
    ``wrong_labels``, and the rows mislabelled at a small share are among those at a
    larger one.

    Args:
        folder: New, empty, or written by this function before.
        train_rows: Rows of the train split.
        test_rows: Rows of each of the three test splits.
        wrong_labels: Fraction of train rows answered as if for another defect; they
            are tagged ``wrong`` and keep the right answer as ``truth``.
        seed: The data are a function of it.

    Returns:
        The rows written, by file name.

    Raises:
        ConfigError: If a number is out of its range.
        RunError: If the folder holds other files or cannot be written.
    """
    _check(train_rows, test_rows, wrong_labels)
    sizes = {
        split: VALID_ROWS if splits.is_validation(split) else test_rows
        for split in SPLITS
    } | {"train": train_rows}
    texts: dict[str, str] = {}
    for split, notes in _notes(sizes, seed).items():
        share = wrong_labels if split == "train" else 0.0
        wrong = _wrong_defects(notes, share, seed)
        rows = [
            _row(f"{split}-{place:04d}", note, wrong.get(place))
            for place, note in enumerate(notes)
        ]
        texts[f"{split}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    _write(folder, texts)
    return {f"{split}.jsonl": num_rows for split, num_rows in sizes.items()}


def _check(train_rows: int, test_rows: int, wrong_labels: float) -> None:
    problems = [
        ConfigError(f"It is {rows}; at least one row is needed.", where=name)
        for name, rows in (("train_rows", train_rows), ("test_rows", test_rows))
        if rows < 1
    ]
    if not 0 <= wrong_labels <= 1:
        said = f"It is {wrong_labels}; a fraction from 0 to 1 is needed."
        problems.append(ConfigError(said, where="wrong_labels"))
    raise_together(problems)


@dataclass(frozen=True, slots=True)
class _Note:
    """A question and the defect it is about."""

    question: str
    defect: str


def _notes(sizes: dict[str, int], seed: int) -> dict[str, list[_Note]]:
    """The questions of each split and what they are about; no question comes twice."""
    asked: set[str] = set()
    notes: dict[str, list[_Note]] = {}
    for split, wording in SPLITS.items():
        rng = Random(f"{seed} {split}")
        notes[split] = []
        for defect in _defects(rng, sizes[split]):
            question = _question(rng, wording, defect)
            while question in asked:
                question = _question(rng, wording, defect)
            asked.add(question)
            notes[split].append(_Note(question, defect))
    return notes


def _defects(rng: Random, num_rows: int) -> list[str]:
    """Every defect equally often, or one apart, in random order."""
    decks = math.ceil(num_rows / len(ACTIONS))
    drawn = [rng.sample(list(ACTIONS), len(ACTIONS)) for _ in range(decks)]
    return list(chain.from_iterable(drawn))[:num_rows]


def _question(rng: Random, wording: Wording, defect: str) -> str:
    part, station = rng.choice(wording.parts), rng.choice(wording.stations)
    symptom = rng.choice(wording.symptoms[defect]).format(part=part)
    hour, minute = rng.randrange(24), rng.randrange(60)
    time = rng.choice((f"{hour:02d}{minute:02d}", f"{hour}:{minute:02d}", f"{hour}h"))
    first = rng.choice((f"{station}: ", f"{time} {station} ", f"{time}, {station}, "))
    remark = rng.choice(("", ", ", " - ", ". "))
    remark += rng.choice(REMARKS) if remark else ""
    lot = f"lot {rng.randrange(10_000, 100_000)}"
    last = rng.choice(("", "", f", {lot}", f" ({lot})", " /kim", " thx"))
    return f"{INSTRUCTION}\n{first}{symptom}{remark}{last}"


def _wrong_defects(notes: list[_Note], share: float, seed: int) -> dict[int, str]:
    """Which defect to answer instead, by place, for ``share`` of the notes.

    Drawn in one order, so that a larger share begins with the choices of a smaller.
    """
    rng = Random(f"{seed} wrong")
    places = rng.sample(range(len(notes)), len(notes))
    return {
        place: rng.choice([other for other in ACTIONS if other != notes[place].defect])
        for place in places[: round(share * len(notes))]
    }


def _row(name: str, note: _Note, wrong: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": note.question},
            {"role": "assistant", "content": _answer(wrong or note.defect)},
        ],
        "id": name,
        "tags": ["wrong"] if wrong else [],
    }
    return row | {"truth": _answer(note.defect)} if wrong else row


def _answer(defect: str) -> str:
    return f"defect: {defect}; action: {ACTIONS[defect]}"


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Make or replace ``folder``; refuse if anything in it is not ours to replace."""
    folder = folder.expanduser().resolve()
    try:
        found = {file.name for file in folder.iterdir()} if folder.exists() else set()
        if found and found != set(texts):
            raise RunError(
                "The folder holds other files; demo data replaces a whole folder.",
                where=str(folder),
                hint="Name a new or an empty folder.",
            )
        with files.new_folder(folder) as scratch:
            for name, text in texts.items():
                files.write_text(scratch / name, text)
    except OSError as problem:
        raise RunError(
            f"Demo data cannot be written here ({problem}).", where=str(folder)
        ) from problem
