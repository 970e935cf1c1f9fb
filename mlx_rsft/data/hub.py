"""Data sets of the Hub: ``hf:owner/name``, perhaps at a revision, perhaps one split.

Which files are which split is said by the card (``README.md``), or else by their names.
Only those files are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mlx_rsft import hub
from mlx_rsft.data import containers, splits
from mlx_rsft.errors import DataError, nearest

PREFIX = "hf:"
CARD = "README.md"
ADDRESS = re.compile(
    r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:]+))?"
    r"(:((?P<config>[^/:]+)/)?(?P<split>[^/:]+))?"
)
Globs = dict[str, list[str]]


class Address(NamedTuple):
    """A data set on the Hub, and what of it is wanted; None where nothing is named."""

    repository: str
    revision: str | None
    config: str | None
    split: str | None


def address(place: str) -> Address:
    """The parts of ``hf:OWNER/NAME[@REVISION][:[CONFIG/]SPLIT]``.

    Raises:
        DataError: If it is written otherwise.
    """
    found = ADDRESS.fullmatch(place)
    if found is None:
        raise DataError(
            "This names no data set of the Hub.",
            where=place,
            hint="Write it like hf:owner/name, hf:owner/name:split, "
            "hf:owner/name@revision or hf:owner/name:config/split.",
        )
    return Address(**found.groupdict())


def find_splits(place: str) -> dict[str, list[Path]]:
    """The files of each split, fetched where they are not on this disk yet.

    Raises:
        DataError: If there is no such data set or split, or the Hub cannot be reached.
    """
    wanted = address(place)
    card = _folder(wanted, [CARD])
    # The folder is named after the commit, so that card and data fit together.
    wanted = wanted._replace(revision=card.name)
    if globs := _globs(_configs(card / CARD, place), wanted, place):
        folder = _folder(wanted, [glob for found in globs.values() for glob in found])
        found = {name: _matching(folder, globs[name], place) for name in globs}
    else:
        suffixes = [f"*{suffix}" for suffix in containers.CONTAINERS]
        folder = _folder(wanted, [CARD, *suffixes, *(f"{s}.gz" for s in suffixes)])
        found = _by_name(folder, place)
    return _chosen(found, wanted.split, place)


def _folder(wanted: Address, patterns: Sequence[str]) -> Path:
    return hub.folder(
        wanted.repository,
        patterns,
        DataError,
        kind="dataset",
        revision=wanted.revision,
    )


def _configs(card: Path, place: str) -> list[Mapping[str, Any]]:
    """What the card says under ``configs``."""
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return []
    try:
        said = DatasetCard(
            card.read_text(encoding="utf-8"), ignore_metadata_errors=True
        )
        configs = said.data.to_dict().get("configs") or []
    except Exception as problem:  # noqa: BLE001, a YAML library's own errors
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise DataError(
            f"The data set's card is not understood: {first}", where=f"{place} {CARD}"
        ) from None
    return [config for config in configs if isinstance(config, dict)]


def _globs(configs: Sequence[Mapping[str, Any]], wanted: Address, place: str) -> Globs:
    """The patterns of each split in the wanted configuration; none without a card."""
    named = {str(config.get("config_name", "default")): config for config in configs}
    name = wanted.config
    if name is None:
        defaults = [n for n, c in named.items() if c.get("default") or n == "default"]
        alone = [*named] if len(named) == 1 else []
        name = next(iter([*defaults, *alone]), None)
    if not named and name is None:
        return {}
    if name not in named:
        known = ", ".join(sorted(named)) or "none"
        raise DataError(
            "The data set has several configurations."
            if name is None
            else f"The data set has no configuration {name!r}.",
            where=place,
            hint=f"Choose one: {PREFIX}{wanted.repository}:CONFIG/SPLIT; known: {known}.",
        )
    return _data_files(named[name])


def _data_files(config: Mapping[str, Any]) -> Globs:
    """``data_files`` as a card writes it: one path, several, or some per split."""
    given = config.get("data_files") or []
    under = PurePosixPath(str(config.get("data_dir") or ""))
    globs: Globs = {}
    for entry in given if isinstance(given, list) else [given]:
        split, paths = (
            (str(entry.get("split", splits.TRAIN)), entry.get("path", []))
            if isinstance(entry, dict)
            else (splits.TRAIN, entry)
        )
        for path in paths if isinstance(paths, list) else [paths]:
            name = splits.Part(split).split
            globs.setdefault(name, []).append(str(under / str(path)))
    return globs


def _matching(folder: Path, globs: Sequence[str], place: str) -> list[Path]:
    found: dict[Path, None] = {}
    for glob in globs:
        parts = PurePosixPath(glob)
        outside = ".." in parts.parts or parts.is_absolute() or not parts.name
        try:
            matching = [] if outside else sorted(folder.glob(glob))
        except ValueError:
            matching = []
        if not matching:
            raise DataError(
                f"The data set's card names files that are not there: {glob}.",
                where=place,
            )
        found |= dict.fromkeys(filter(Path.is_file, matching))
    return list(found)


def _by_name(folder: Path, place: str) -> dict[str, list[Path]]:
    """The splits by the names of the files; a file that is alone is ``train``."""
    inside = [path for path in folder.rglob("*") if path.is_file()]
    data = [
        path
        for path in inside
        if containers.kind(path) in containers.CONTAINERS and path.name != CARD
    ]
    if found := splits.by_name(data, folder):
        return found
    if len(data) == 1:
        return {splits.TRAIN: data}
    names = ", ".join(str(path.relative_to(folder)) for path in sorted(data)[:8])
    raise DataError(
        f"No file of the data set is named after a split: {names or 'it has none'}.",
        where=place,
        hint="Pass one as a file: hf download --repo-type dataset fetches them.",
    )


def _chosen(
    found: dict[str, list[Path]], split: str | None, place: str
) -> dict[str, list[Path]]:
    """The one split that is named, or all."""
    if split is None:
        return found
    name = splits.Part(split).split
    if name not in found:
        raise DataError(
            f"There is no split {split!r}.", where=place, hint=nearest(name, found)
        )
    return {name: found[name]}
