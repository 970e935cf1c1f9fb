"""Rows as tokens on disk: written once in a stream, read back one by one.

A set of rendered rows is a folder, named by a hash of everything that decides its
content. Tokens and texts are mapped into memory, so that the rows of a file of any size
take a few dozen bytes each.

    tokens.bin  int32, all rows one after another      rows.npz  where each row begins
    words.bin   place, answer, id, tags, choices, hash  about.json  what became of rows
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

import numpy as np

from mlx_rsft import files
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import MachineError

FOLDER = "rendered"
ABOUT = "about.json"
MOST_BYTES = 8 << 30
"""Rendered rows kept on disk; the sets that were not used for longest go first."""


class Rendered(Sequence[Example]):
    """The rows of one split as tokens; each is made into an ``Example`` when asked for.

    Attributes:
        outcome: How many rows were dropped or truncated, by that word.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.outcome: Mapping[str, int] = about["outcome"]
        with np.load(folder / "rows.npz", allow_pickle=False) as held:
            self._token_ends, self._span_ends = held["tokens"], held["spans_of_row"]
            self._word_ends, self._weights = held["words"], held["weights"]
            self._spans = held["spans"].reshape(-1, 2)
        self._tokens = np.frombuffer(_mapped(folder / "tokens.bin"), np.int32)
        self._words = _mapped(folder / "words.bin")

    def __len__(self) -> int:
        return len(self._weights)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self)
        where, answer, name, tags, choices, row_sha256 = json.loads(
            self._words[_range(self._word_ends, row)]
        )
        return Example(
            tuple(self._tokens[_range(self._token_ends, row)].tolist()),
            tuple(
                (a, b) for a, b in self._spans[_range(self._span_ends, row)].tolist()
            ),
            where,
            answer,
            name,
            tuple(tags),
            float(self._weights[row]),
            tuple(choices),
            row_sha256,
        )


def _range(ends: np.ndarray, row: int) -> slice:
    return slice(int(ends[row - 1]) if row else 0, int(ends[row]))


def _mapped(path: Path) -> Any:
    """A file's bytes, read by the system when they are touched."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def write(
    folder: Path, examples: Iterable[Example], outcome: Mapping[str, int]
) -> None:
    """Write rows into an empty folder as they come; ``outcome`` is read at the end."""
    token_ends, word_ends, span_ends = array("q"), array("q"), array("q")
    spans, weights = array("q"), array("d")
    num_tokens = num_bytes = 0
    with ExitStack() as stack:
        tokens = stack.enter_context((folder / "tokens.bin").open("wb"))
        words = stack.enter_context((folder / "words.bin").open("wb"))
        for row in examples:
            tokens.write(array("i", row.tokens).tobytes())
            said = [row.where, row.answer, row.id, row.tags, row.choices]
            words_of_row = json.dumps([*said, row.row_sha256]).encode()
            num_bytes += words.write(words_of_row)
            num_tokens += len(row.tokens)
            for span in row.spans:
                spans.extend(span)
            token_ends.append(num_tokens)
            word_ends.append(num_bytes)
            span_ends.append(len(spans) // 2)
            weights.append(row.weight)
    np.savez(
        folder / "rows.npz",
        tokens=np.array(token_ends),
        words=np.array(word_ends),
        spans_of_row=np.array(span_ends),
        spans=np.array(spans),
        weights=np.array(weights),
    )
    files.write_json(folder / ABOUT, {"outcome": dict(outcome)})


def cached(key: str, make: Callable[[Counter[str]], Iterator[Example]]) -> Rendered:
    """The rows that ``key`` stands for, rendered by ``make`` unless they are on disk.

    Args:
        key: A hash of everything that decides the rows.
        make: Yields them; counts in the counter it is given what it leaves out.

    Raises:
        MachineError: If the cache folder cannot be written.
    """
    place = files.cache_folder() / FOLDER
    folder = place / key
    try:
        with files.alone(place / f"{key}.lock"):
            if (folder / ABOUT).is_file():
                folder.touch()
            else:
                outcome: Counter[str] = Counter()
                with files.new_folder(folder) as scratch:
                    write(scratch, make(outcome), outcome)
                _make_room(place, folder)
            return Rendered(folder)
    except OSError as problem:
        raise MachineError(
            f"The cache folder cannot be used ({problem.strerror or problem}).",
            where=str(place),
            hint="Free some space, or point MLX_RSFT_CACHE at a folder of your own.",
        ) from problem


def _make_room(place: Path, newest: Path) -> None:
    """Put the oldest away; what other processes are writing or putting away is theirs."""
    held: list[tuple[float, int, Path]] = []
    for folder in place.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                size = sum(file.stat().st_size for file in folder.iterdir())
                held.append((folder.stat().st_mtime, size, folder))
    left = sum(size for _, size, _ in held)
    for _, size, folder in sorted(held):
        if left > MOST_BYTES and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
            left -= size
