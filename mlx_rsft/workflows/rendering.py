"""One split as tokens: how its files are read, and what its rendering is kept under."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_rsft import files, manifest
from mlx_rsft.data import containers, formats, rendered, source
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.examples import Shape, examples
from mlx_rsft.data.rendered import Rendered
from mlx_rsft.models import load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.settings import Config
from mlx_rsft.workflows.reporter import Reporter


def reading(config: Config) -> tuple[str, dict[str, str], str]:
    """How data files are to be read: format, renamed columns, encoding."""
    data = config.data
    return data.format, source.parse_columns(data.map), data.encoding


def shape(config: Config, tokenizer: Any, folder: Path) -> Shape:
    """What examples are to be like; none is longer than the folder's model reads."""
    data = config.data
    most = min(data.max_length, load.context_length(folder) or data.max_length)
    return Shape(tokenizer, data.train_on, most, data.overlong)


def split(
    name: str,
    paths: Sequence[Path],
    hashes: Mapping[str, str],
    config: Config,
    loaded: LoadedModel,
    reporter: Reporter,
) -> Rendered:
    """One split as tokens, rendered now unless it was before."""
    wanted = shape(config, loaded.tokenizer, loaded.path)

    def make(outcome: Counter[str]) -> Iterator[Example]:
        found = formats.split_conversations(paths, *reading(config))
        with reporter.task(f"render {name}", 0) as advance:
            done = 0

            def report(rows: int) -> None:
                nonlocal done
                done += rows
                advance(rows, f"{done:,} rows")

            yield from examples(found, wanted, outcome, report)

    made = rendered.cached(_key(hashes, config, loaded), make)
    _announce_encodings(paths, config, reporter)
    for word, count in made.outcome.items():
        reporter.note(
            f"{name}: {count} rows longer than {wanted.max_length} tokens {word}."
        )
    return made


def _announce_encodings(
    paths: Sequence[Path], config: Config, reporter: Reporter
) -> None:
    """Say what text was taken for, where it is neither named nor plain UTF-8."""
    for path in paths if config.data.encoding == containers.AUTO else ():
        encoding = containers.encoding_of(path)
        if encoding not in containers.USUAL:
            reporter.note(f"{path} was read as {encoding}.")


def _key(hashes: Mapping[str, str], config: Config, loaded: LoadedModel) -> str:
    """A hash of everything that decides how a split looks as tokens."""
    return manifest.text_sha256(
        json.dumps(
            [
                manifest.versions(),
                files.tree_sha256(Path(rendered.__file__).parent),  # how we render
                load.tokenizer_identity(loaded.path),
                str(loaded.tokenizer.chat_template),  # what a file named may change
                asdict(config.data) | {"source": ""},
                dict(hashes),
            ]
        )
    )
