"""Look at data before training: what is wrong with it, and what of a row is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data import check as checks
from mlx_rsft.data import formats, render, source
from mlx_rsft.data.check import Finding
from mlx_rsft.data.conversation import Conversation
from mlx_rsft.data.render import ChatTokenizer
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.settings import Config
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter


def check(resolved: Resolved, place: Path, reporter: Reporter) -> dict[str, Any]:
    """Every problem of a data file or folder.

    With a model in the settings, rows are also held to its chat template and to the
    longest length allowed.

    Returns:
        ``{"splits", "findings", "counts", "hurts"}``.
    """
    config = resolved.config
    given = bool(config.model.source)
    tokenizer = assemble.tokenizer(config, reporter) if given else None
    found: list[Finding] = []
    rows: dict[str, list[Conversation]] = {}
    splits: dict[str, dict[str, Any]] = {}
    for name, paths in source.find_splits(place.expanduser()).items():
        rows[name] = _parsed(paths, config, found)
        splits[name] = {"rows": len(rows[name])}
        if tokenizer:
            splits[name] |= _tokens(rows[name], tokenizer, config, found)
    found += checks.findings(rows)
    return {
        "splits": splits,
        "findings": [asdict(finding) for finding in found],
        "counts": checks.counts(found),
        "hurts": any(finding.hurts for finding in found),
    }


def _parsed(
    paths: list[Path], config: Config, found: list[Finding]
) -> list[Conversation]:
    good: list[Conversation] = []
    for row in formats.split_conversations(paths, *assemble.reading(config)):
        if isinstance(row, DataError):
            found.append(checks.from_error("malformed", row))
        else:
            good.append(row)
    return good


def _tokens(
    rows: list[Conversation],
    tokenizer: ChatTokenizer,
    config: Config,
    found: list[Finding],
) -> dict[str, Any]:
    """Token counts of the rows that fit the model; the others become findings."""
    lengths: list[int] = []
    supervised = 0
    for row in rows:
        kind = "template"
        try:
            example = render.render(row, tokenizer, config.data.train_on)
            kind = "too long"
            render.check_length(example, config.data.max_length)
        except DataError as problem:
            found.append(checks.from_error(kind, problem))
            continue
        lengths.append(len(example.tokens))
        supervised += example.num_supervised
    if not lengths:
        return {"tokens": 0, "supervised": 0}
    return {
        "tokens": sum(lengths),
        "supervised": supervised,
        "median": int(np.median(lengths)),
        "longest": max(lengths),
    }


def show(
    resolved: Resolved, file: Path, row: int, reporter: Reporter
) -> dict[str, Any]:
    """The tokens of one row, and which of them are trained.

    Args:
        resolved: Settings with a model.
        file: A data file.
        row: Which row, counted from 1.
        reporter: Told what is loaded.

    Returns:
        ``{"where", "tokens": [{"id", "text", "trained"}]}``.
    """
    config = resolved.config
    configuration.require(config, "model.source")
    if not file.is_file():
        raise DataError("There is no such file.", where=str(file))
    rows = formats.read_conversations(file, *assemble.reading(config))
    if row > len(rows):
        raise ConfigError(f"The file has {len(rows)} rows.", where=f"--row {row}")
    tokenizer = assemble.tokenizer(config, reporter)
    example = render.render(rows[row - 1], tokenizer, config.data.train_on)
    trained = {place for start, end in example.spans for place in range(start, end)}
    tokens = [
        {
            "id": token,
            "text": tokenizer.decode([token]),
            "trained": place in trained,
        }
        for place, token in enumerate(example.tokens)
    ]
    return {"where": example.where, "tokens": tokens}
