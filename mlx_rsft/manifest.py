"""What was trained on what, with what, where: the identity card of a run.

Written before the first step with ``finished`` null, and again at the end.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.records import finite

RECORDED_PACKAGES = ("mlx-rsft", "mlx", "mlx-lm", "numpy", "transformers", "tokenizers")
OF_RESULTS = ("MLX_RSFT_BLAS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
"""What of a process's environment may change the last digits of a result."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts of one run.

    Attributes:
        model: ``source`` as given, ``path``, ``precision`` used and file hashes.
        data: ``source``, rows per split and file hashes.
        objective: Name and every parameter that was given or chosen.
        probe: What ``auto`` found in the base model; None if it was not asked.
        result: Steps done, last losses, seconds; empty until the run has ended.
        notes: What was corrected or announced on the way, in plain sentences.
        identity: What must be the same when it goes on; None if it cannot.
        code: One hash of this package's own files.
        packages: Every installed package with its version.
        environment: What is set of ``OF_RESULTS``.
        rows: How many rows were trained on, and the hash of ``rows.jsonl``.
        lineage: The adapters it stands on, the oldest first.
        effects: What it did beside its task; None if that was not looked for.
        resumed: Steps at which a run that was cut off went on.
        extended: Steps at which it was made longer, and to how many.
        finished: UTC time of the end; None while running or when cut off.
    """

    command: Sequence[str]
    versions: Mapping[str, str]
    device: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    objective: Mapping[str, Any]
    config_sha256: str
    seed: int
    started: str
    probe: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    code: str = ""
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    rows: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lineage: Sequence[Mapping[str, Any]] = ()
    effects: Sequence[Mapping[str, Any]] | None = None
    identity: Mapping[str, Any] | None = None
    resumed: Sequence[int] = ()
    extended: Sequence[Mapping[str, int]] = ()
    finished: str | None = None
    interrupted: bool = False
    result: Mapping[str, Any] | None = None

    def ended(self, result: Mapping[str, Any], *, interrupted: bool) -> Manifest:
        """The card of the same run after its end."""
        return replace(
            self,
            finished=None if interrupted else now(),
            interrupted=interrupted,
            result=result,
        )

    def text(self) -> str:
        """The card as its file holds it."""
        return as_text(asdict(self))


SEAL = "seal"


def as_text(card: Mapping[str, Any]) -> str:
    """A card as its file holds it, from its fields."""
    record = finite({key: value for key, value in card.items() if key != SEAL})
    assert isinstance(record, dict)
    text = json.dumps(sealed(record), indent=2, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a hash of itself, so that a damaged one is recognised."""
    return {**record, SEAL: record_sha256(record)}


def unsealed(text: str) -> dict[str, Any]:
    """The record that was sealed and written as JSON.

    Raises:
        ValueError: If it is not as it was written.
    """
    record: Any = json.loads(text)
    if not isinstance(record, dict) or record.pop(SEAL, "") != record_sha256(record):
        raise ValueError("it is not as it was written")
    return record


def record_sha256(record: Mapping[str, Any]) -> str:
    """The SHA-256 of what a record says, whatever the order of its keys."""
    return text_sha256(json.dumps(record, sort_keys=True))


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found: dict[str, str] = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def code_sha256() -> str:
    """One hash of this package's files, and of their names."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(bytes.fromhex(files.sha256(path)))
    return digest.hexdigest()


@functools.cache
def packages() -> dict[str, str]:
    """Every installed package with its version, by name."""
    found = {one.name: one.version for one in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def environment() -> dict[str, str]:
    """What is set of ``OF_RESULTS``."""
    return {name: os.environ[name] for name in OF_RESULTS if name in os.environ}


def command_line() -> list[str]:
    """The command as it was typed, with the program's bare name."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def now() -> str:
    """The present time, UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
