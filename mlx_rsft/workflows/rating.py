"""Let people judge two models' answers blind, and read what they said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Config, Resolved
from mlx_rsft.data import containers
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError, RsftError, raise_together
from mlx_rsft.evaluation import generate, ratings
from mlx_rsft.evaluation.ratings import Sample
from mlx_rsft.report import sheet
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

KEY, SHEET, PAGE = "key.json", "sheet.csv", "sheet.html"
BARE = "base"
"""How the bare model is called where an adapter is asked for."""
Answered = dict[str, list[str]]


def write(
    resolved: Resolved,
    adapter: Path | None,
    against: str,
    folder: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the sheet and, apart from it, the key that says who wrote what.

    Args:
        resolved: Model, data, splits, the longest answer, and the most pairs.
        adapter: The one that is asked about; None: the bare model.
        against: Folder of the other, or ``base``.
        folder: Is made; must not be there.
        reporter: Told of progress.

    Raises:
        RsftError: If the folder is there, the models are one, or never differ.
    """
    config = resolved.config
    configuration.require(config, "model.source", "data.source")
    other = None if against == BARE else Path(against)
    if folder.exists():
        raise ConfigError("It exists already.", where=str(folder), hint="Name another.")
    if adapter == other:
        raise ConfigError("Both are the same model.", where="--against")
    samples = _samples(config, adapter, other, reporter)
    pairs = ratings.blind(samples, config.evaluation.pairs, config.seed)
    same = sum(row.ours.strip() == row.theirs.strip() for row in samples)
    if not pairs:
        raise DataError(f"Both models give the same answer to all {same} questions.")
    key = {
        "model": config.model.source,
        ratings.OURS: str(adapter) if adapter else BARE,
        ratings.THEIRS: str(other) if other else BARE,
        "seed": config.seed,
        "questions": len(samples),
        "identical": same,
        "pairs": [
            {"number": p.number, "split": p.split, "where": p.where, "a": p.a}
            for p in pairs
        ],
    }
    with files.new_folder(folder) as scratch:
        files.write_text(scratch / SHEET, sheet.sheet_csv(pairs))
        files.write_text(scratch / PAGE, sheet.sheet_page(pairs))
        files.write_json(scratch / KEY, key)
    return {
        "sheet": str(folder / SHEET),
        "page": str(folder / PAGE),
        "key": str(folder / KEY),
        "pairs": len(pairs),
        "identical": same,
    }


def _samples(
    config: Config, adapter: Path | None, other: Path | None, reporter: Reporter
) -> list[Sample]:
    paths = assemble.evaluation_paths(config)
    loaded = assemble.model(config, reporter)
    splits = assemble.splits(paths, config, loaded, reporter).rows
    rows = [(name, row) for name, found in splits.items() for row in found]
    examples = [row for _, row in rows]
    ours = _answers(config, adapter, examples, reporter)
    theirs = _answers(config, other, examples, reporter)
    inner: Any = getattr(loaded.tokenizer, "_tokenizer", loaded.tokenizer)
    return [
        Sample(
            name,
            row.where,
            inner.decode(list(row.prompt), skip_special_tokens=True).strip(),
            row.answer,
            one,
            two,
        )
        for (name, row), one, two in zip(rows, ours, theirs, strict=True)
    ]


def _answers(
    config: Config, adapter: Path | None, rows: Sequence[Example], reporter: Reporter
) -> list[str]:
    loaded = assemble.model(config, reporter)
    model = assemble.adapted(loaded, adapter).model
    with reporter.task(f"answer as {adapter or BARE}", len(rows)) as advance:
        limit = config.evaluation.max_tokens
        written = generate.answers(model, loaded.tokenizer, rows, limit, advance)
    return [answer.text for answer in written]


def read(sheets: Sequence[Path], key: Path | None) -> dict[str, Any]:
    """What the raters said, unblinded.

    Args:
        sheets: Filled-in copies of one sheet, one per rater.
        key: Its key; None: beside the first sheet.

    Raises:
        RsftError: If a sheet does not fit the key, or nobody has rated anything.
    """
    path = key or sheets[0].with_name(KEY)
    told = _key(path)
    sides = {int(pair["number"]): str(pair["a"]) for pair in told["pairs"]}
    marks = [mark for one in sheets for mark in _marks(one, sides)]
    if not marks:
        raise DataError(
            "No answer is rated.",
            where=str(sheets[0]),
            hint="Write A, B or = into the column better.",
        )
    return {
        ratings.OURS: told[ratings.OURS],
        ratings.THEIRS: told[ratings.THEIRS],
        "raters": len(sheets),
        "pairs": len(sides),
        "identical": told["identical"],
        **ratings.unblind(marks, sides).as_record(),
    }


def _key(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        _ = [(int(p["number"]), p["a"]) for p in told["pairs"]], told["identical"]
        _ = told[ratings.OURS], told[ratings.THEIRS]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            "The key of the sheet cannot be read.",
            where=str(path),
            hint=f"It is the {KEY} that was written with the sheet; name it with --key.",
        ) from None
    return told


def _marks(path: Path, sides: dict[int, str]) -> list[tuple[int, str]]:
    marks: list[tuple[int, str]] = []
    problems: list[RsftError] = []
    seen: set[int] = set()
    for row in containers.read(path):
        if isinstance(row, DataError):
            problems.append(row)
            continue
        number = str(row.record.get("number", "")).strip()
        mark = str(row.record.get("better") or "").strip().upper()
        known = number.isdigit() and int(number) in sides and int(number) not in seen
        if not known:
            problems.append(
                DataError(f"number = {number!r}: no pair of the key.", where=row.where)
            )
        elif mark and mark not in sheet.MARKS:
            problems.append(
                DataError(f"better = {mark!r}: expected A, B or =.", where=row.where)
            )
        elif mark:
            marks.append((int(number), mark))
        if known:
            seen.add(int(number))
    raise_together(problems)
    return marks
