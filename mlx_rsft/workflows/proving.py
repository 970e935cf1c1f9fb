"""Which rows a run was trained on, provable without the rows: salted hashes.

RUN/rows.jsonl  one line per example, in the order of their numbers: where, sha256
RUN/rows.salt   the secret. Whoever has it can look for any row; for one row alone,
                ``salt_of`` is told instead, and proves that row and no other.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlx_rsft import files
from mlx_rsft.data.conversation import Example
from mlx_rsft.records import as_line
from mlx_rsft.rundir import RunDir

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Salted:
    """Both files of a run, as they are going to be written."""

    secret: str
    lines: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """What the manifest says of them."""
        digest = hashlib.sha256("".join(self.lines).encode()).hexdigest()
        return {"examples": len(self.lines), "sha256": digest}

    def write(self, run: RunDir) -> None:
        """Write them; the secret for its owner alone."""
        files.write_text(run.rows, "".join(self.lines))
        files.write_text(run.salt, self.secret + "\n", mode=files.PRIVATE)


def salted(rows: Sequence[Example]) -> Salted:
    """The rows of a new run, under a secret of its own."""
    secret = secrets.token_hex(SECRET_BYTES)
    lines = tuple(
        as_line({"where": place(row.where), "sha256": digest(secret, row.row_sha256)})
        for row in rows
    )
    return Salted(secret, lines)


def place(where: str) -> str:
    """``file:line`` without the folder, which may move."""
    return PurePosixPath(where).name


def salt_of(secret: str, row_sha256: str) -> str:
    """The salt of one row; without the secret nobody can find it."""
    return hmac.new(secret.encode(), row_sha256.encode(), "sha256").hexdigest()


def digest(secret: str, row_sha256: str) -> str:
    """What stands for a row in ``rows.jsonl``: ``SHA-256(salt of the row, its hash)``."""
    salted = salt_of(secret, row_sha256) + row_sha256
    return hashlib.sha256(salted.encode()).hexdigest()
