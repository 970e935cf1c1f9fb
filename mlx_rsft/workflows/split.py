"""Cut one file into splits that share no question, and write them as a data folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data import formats, source
from mlx_rsft.data.conversation import Row
from mlx_rsft.data.source import TEST, TRAIN, VALID
from mlx_rsft.data.splitting import Splitter
from mlx_rsft.errors import ConfigError, DataError, RsftError, nearest, raise_together
from mlx_rsft.workflows import rendering
from mlx_rsft.workflows.reporter import Reporter

FILE_NAME = re.compile(r"[\w.-]+")


def split(
    resolved: Resolved,
    file: Path,
    out: Path,
    reporter: Reporter,
    *,
    shares: Mapping[str, float],
    group: str | None = None,
    held_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``train.jsonl``, ``valid.jsonl``, ``test.jsonl`` and one per held-out tag.

    Args:
        resolved: Settings; those of reading and the seed count here.
        file: The rows, in any form that can be read.
        out: A new folder.
        reporter: Told how far it is.
        shares: Share of the rows for ``valid`` and ``test``; ``train`` gets the rest.
        group: A column; rows with the same value there stay together.
        held_out: Tags that become test splits of their own.

    Returns:
        ``{"folder", "splits": {NAME: {"rows", "tags"}}}``.

    Raises:
        ConfigError: If the shares leave nothing to train on, or nobody has a tag.
        DataError: With all rows that cannot be used, or if a split would be empty.
    """
    wanted = {TRAIN: 1 - sum(shares.values()), **shares}
    if wanted[TRAIN] <= 0:
        raise ConfigError("The shares leave no rows to train on.", where="--test")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("There is something already.", where=str(out))
    (paths,) = source.find_splits(file).values()
    with reporter.task("look for rows that belong together", 0) as advance:
        names, tags = _assign(resolved, paths, wanted, group, held_out, advance)
    counts = Counter(names)
    for name in [*wanted, *held_out]:
        if not counts[name] and wanted.get(name, 1):
            raise DataError(
                f"The split {name!r} would be empty.",
                where=str(file),
                hint="Give it a larger share, or bring more rows; rows that ask the "
                "same stay together.",
            )
    with reporter.task("write", len(names)) as advance:
        _write(out, _rows(resolved, paths), names, advance)
    return {
        "folder": str(out),
        "splits": {
            _file_name(name): {"rows": counts[name], "tags": dict(tags[name])}
            for name in [*wanted, *held_out]
            if counts[name]
        },
    }


def _write(
    out: Path, rows: Iterable[Row | DataError], names: Sequence[str], advance: Any
) -> None:
    """Every row into the file of its split; all of them or none."""
    with files.new_folder(out) as scratch, ExitStack() as stack:
        opened = {
            name: stack.enter_context(
                (scratch / _file_name(name)).open("w", encoding="utf-8")
            )
            for name in set(names)
        }
        for row, name in zip(rows, names, strict=True):
            assert isinstance(row, Row)
            opened[name].write(json.dumps(row.record, ensure_ascii=False) + "\n")
            advance(1)


def _file_name(name: str) -> str:
    plain = name in (TRAIN, VALID, TEST)
    return f"{name}.jsonl" if plain else f"{TEST}_{name}.jsonl"


def _rows(resolved: Resolved, paths: Sequence[Path]) -> Iterator[Row | DataError]:
    _, columns, encoding = rendering.reading(resolved.config)
    for path in paths:
        yield from source.read(path, columns, encoding)


def _assign(
    resolved: Resolved,
    paths: Sequence[Path],
    shares: Mapping[str, float],
    group: str | None,
    held_out: Sequence[str],
    advance: Any,
) -> tuple[list[str], dict[str, Counter[str]]]:
    """The split of every row, and how often each tag is in each split."""
    known = formats.candidates(resolved.config.data.format)
    splitter = Splitter()
    problems: list[RsftError] = []
    tags: list[tuple[str, ...]] = []
    for number, row in enumerate(_rows(resolved, paths), start=1):
        advance(1, f"{number:,} rows")
        try:
            if isinstance(row, DataError):
                raise row
            parsed = formats.parse(row, known)
            splitter.add(parsed, _group_of(row, group))
            tags.append(parsed.tags)
        except DataError as problem:
            problems.append(problem.with_traceback(None))
    raise_together(problems)
    _check_tags(held_out, {tag for some in tags for tag in some})
    names = splitter.assign(shares, held_out, resolved.config.seed)
    by_split: dict[str, Counter[str]] = {name: Counter() for name in set(names)}
    for name, some in zip(names, tags, strict=True):
        by_split[name].update(some)
    return names, by_split


def _group_of(row: Row, column: str | None) -> str | None:
    if column is None:
        return None
    if column not in row.record:
        raise DataError(
            f"The row has no column {column!r}.",
            where=row.where,
            hint=f"{nearest(column, row.record)} Check --group.",
        )
    return json.dumps(row.record[column], sort_keys=True)


def _check_tags(held_out: Sequence[str], present: set[str]) -> None:
    for tag in held_out:
        if tag not in present:
            raise ConfigError(
                f"No row has the tag {tag!r}.",
                where="--hold-out",
                hint=nearest(tag, present) if present else "No row has any tag.",
            )
        if not FILE_NAME.fullmatch(tag):
            raise ConfigError(f"The tag {tag!r} is no file name.", where="--hold-out")
