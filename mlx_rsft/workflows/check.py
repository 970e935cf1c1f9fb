"""Look at data before training: what is wrong with it, and what of a row is trained."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data import check as checks
from mlx_rsft.data import containers, formats, render, source
from mlx_rsft.data.check import Finding, Watch
from mlx_rsft.data.conversation import Conversation, Example
from mlx_rsft.data.examples import Shape
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.models import source as model_source
from mlx_rsft.report.tokens import tokens_page
from mlx_rsft.settings import Config
from mlx_rsft.workflows import assemble, rendering
from mlx_rsft.workflows.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of some rows in tokens, and how many of those are trained."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    supervised: array[int] = field(default_factory=lambda: array("i"))

    def add(self, examples: Iterable[Example]) -> None:
        """Count the examples of one row."""
        for example in examples:
            self.tokens.append(len(example.tokens))
            self.supervised.append(example.num_supervised)

    def as_record(self) -> dict[str, int]:
        """Sums and the usual and largest length; only zeros if there is no row."""
        tokens = np.array(self.tokens if self.tokens else [0])
        return {
            "tokens": int(tokens.sum()),
            "supervised": sum(self.supervised),
            "median": int(np.median(tokens)),
            "longest": int(tokens.max()),
        }


def check(resolved: Resolved, place: Path, reporter: Reporter) -> dict[str, Any]:
    """Every problem of a data file or folder.

    With a model in the settings, rows are also held to its chat template and to the
    longest length allowed, and tokens are counted per split and tag.

    Returns:
        ``{"splits", "findings", "counts", "hurts"}``.
    """
    config = resolved.config
    shape: Shape | None = None
    if config.model.source:
        tokenizer = assemble.tokenizer(config, reporter)
        folder = model_source.as_folder(config.model.source)
        shape = rendering.shape(config, tokenizer, folder)
    splits = source.find_splits(place.expanduser())
    found: list[Finding] = []
    described: dict[str, dict[str, Any]] = {}
    train: Watch | None = None
    for name in sorted(splits, key=lambda name: name != source.TRAIN):
        watch = Watch(train)
        rows = formats.split_conversations(splits[name], *rendering.reading(config))
        with reporter.task(f"check {name}", 0) as advance:
            look = _Look(watch, shape, found, advance)
            described[name] = look.over(rows)
        _add_encodings(described[name], splits[name], config)
        train = watch if name == source.TRAIN else train
    return {
        "splits": described,
        "findings": [asdict(finding) for finding in found],
        "counts": checks.counts(found),
        "hurts": any(finding.hurts for finding in found),
    }


def _add_encodings(told: dict[str, Any], paths: Sequence[Path], config: Config) -> None:
    """What the text was taken for, where it is neither named nor plain UTF-8."""
    if config.data.encoding != containers.AUTO or not told["rows"]:
        return
    found = {containers.encoding_of(path) for path in paths} - {*containers.USUAL}
    if found:
        told["encoding"] = ", ".join(sorted(found))


@dataclass(frozen=True, slots=True)
class _Look:
    """One pass over a split; adds to ``found``."""

    watch: Watch
    shape: Shape | None
    found: list[Finding]
    advance: Any

    def over(self, rows: Iterable[Conversation | DataError]) -> dict[str, Any]:
        """What the split is like."""
        lengths, by_tag = Lengths(), dict[str, Lengths]()
        outcome, num_rows, num_by_tag = Counter[str](), 0, Counter[str]()
        for number, row in enumerate(rows, start=1):
            self.advance(1, f"{number:,} rows")
            if isinstance(row, DataError):
                self.found.append(checks.from_error("malformed", row))
                continue
            num_rows += 1
            num_by_tag.update(row.tags)
            self.found.extend(self.watch.look(row))
            examples = self._examples(row, outcome)
            lengths.add(examples)
            for tag in row.tags:
                by_tag.setdefault(tag, Lengths()).add(examples)
        told: dict[str, Any] = {"rows": num_rows, **outcome}
        told |= lengths.as_record() if self.shape else {}
        if by_tag:
            told["tags"] = {
                tag: {"rows": num_by_tag[tag]}
                | (by_tag[tag].as_record() if self.shape else {})
                for tag in sorted(by_tag)
            }
        return told

    def _examples(self, row: Conversation, outcome: Counter[str]) -> list[Example]:
        if self.shape is None:
            return []
        try:
            return self.shape.examples(row, outcome)
        except DataError as problem:
            self.found.append(checks.from_error("template", problem))
            return []


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
        ``{"where", "examples": [{"tokens": [{"id", "text", "trained", "special"}]}]}``;
        usually one example, more where the template rewrites earlier turns.
    """
    config = resolved.config
    configuration.require(config, "model.source")
    if not file.is_file():
        raise DataError("There is no such file.", where=str(file))
    chosen = _row(file, row, config)
    tokenizer = assemble.tokenizer(config, reporter)
    examples = render.render(chosen, tokenizer, config.data.train_on)
    return {
        "where": chosen.where,
        "examples": [{"tokens": _tokens(found, tokenizer)} for found in examples],
    }


def _row(file: Path, row: int, config: Config) -> Conversation:
    """The row of this number; those before it are read past, whatever they are."""
    number = 0
    for found in formats.conversations(file, *rendering.reading(config)):
        number += 1
        if number == row:
            if isinstance(found, DataError):
                raise found
            return found
    raise ConfigError(f"The file has {number} rows.", where=f"--row {row}")


def _tokens(example: Example, tokenizer: Any) -> list[dict[str, Any]]:
    special = frozenset(tokenizer.all_special_ids) | frozenset(tokenizer.eos_token_ids)
    trained = {place for start, end in example.spans for place in range(start, end)}
    return [
        {
            "id": token,
            "text": tokenizer.decode([token]),
            "trained": place in trained,
            "special": token in special,
        }
        for place, token in enumerate(example.tokens)
    ]


def save_page(shown: Mapping[str, Any], path: Path, *, ids: bool) -> None:
    """Write what ``show`` found as one HTML file.

    Raises:
        ConfigError: If it cannot be written there.
    """
    save_text(tokens_page(shown, ids=ids), path)


def save_text(page: str, path: Path) -> None:
    """Write a page.

    Raises:
        ConfigError: If it cannot be written there.
    """
    try:
        files.write_text(path, page)
    except OSError as problem:
        raise ConfigError(
            f"The page cannot be written ({problem.strerror or problem}).",
            where=str(path),
        ) from None
