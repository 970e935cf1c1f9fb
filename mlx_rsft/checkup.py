"""What is well and what is not with this machine, each with a remedy to copy.

Pure functions of facts, so that a Mac's facts can be looked at anywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mlx_rsft.machine import Device

GIB = 1 << 30
LITTLE_DISK = 5 * GIB
TESTED = {
    "mlx": "0.32",
    "mlx-lm": "0.32",
    "transformers": "5",
    "huggingface-hub": "2",
    "numpy": "2",
    "gguf": "0.19",
}
"""Versions that the tests run with, as far as they matter."""
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
"""Packages that install the same library file, so that the later one wins."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        level: ``fine``; ``note``, to be known; ``problem``, to be acted on.
        topic: In a word or two.
        message: What was found.
        remedy: What to do, to be copied where it is a command.
    """

    level: Literal["fine", "note", "problem"]
    topic: str
    message: str
    remedy: str = ""

    def as_record(self) -> dict[str, str]:
        return asdict(self)


def python(system: str, architecture: str, version: str) -> Finding:
    """Whether this Python is built for the machine; args as ``platform`` has them."""
    told = f"{version}, {architecture}, {system}"
    if system == "Darwin" and architecture != "arm64":
        return Finding(
            "problem",
            "python",
            f"{told}: built for Intel; on Apple silicon it runs under Rosetta, for "
            "which there is no mlx.",
            "Make the environment anew with a Python for arm64: "
            "uv venv --python cpython-3.12-macos-aarch64, or brew install python@3.12 "
            "in a terminal that is not opened with Rosetta.",
        )
    return Finding("fine", "python", told)


def device(found: Device) -> list[Finding]:
    """What computes, and what is under it."""
    computes = f"{found.backend}, {found.name or found.architecture}"
    return [
        Finding("fine", "backend", f"mlx computes on {computes}, {found.cores} cores"),
        _memory(found),
        _blas(found),
    ]


def _memory(found: Device) -> Finding:
    total, resident = found.memory_bytes, found.working_set_bytes
    told = f"{total / GIB:.1f} GiB"
    if not resident:
        return Finding("fine", "memory", told)
    told += f", of which the GPU keeps up to {resident / GIB:.1f} GiB resident"
    possible = total - max(4 * GIB, total // 8)
    if found.backend != "metal" or possible <= resident:
        return Finding("fine", "memory", told)
    return Finding(
        "note",
        "memory",
        told,
        "For a model that just fails to fit, until the next start: "
        f"sudo sysctl iogpu.wired_limit_mb={possible >> 20}",
    )


def _blas(found: Device) -> Finding:
    if found.backend != "cpu" or found.blas != "reference":
        return Finding("fine", "BLAS", found.blas)
    if os.environ.get("MLX_RSFT_BLAS") == "off":
        return Finding(
            "note",
            "BLAS",
            "OpenBLAS is switched off by MLX_RSFT_BLAS; training is many times slower.",
            "unset MLX_RSFT_BLAS",
        )
    return Finding(
        "problem",
        "BLAS",
        "The reference BLAS multiplies matrices many times more slowly than OpenBLAS.",
        "pip install 'mlx-rsft[cpu]'",
    )


def installed() -> dict[str, str]:
    """Versions of the packages that matter, where they are installed."""
    found: dict[str, str] = {}
    for name in (*TESTED, *BACKENDS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions(found: Mapping[str, str]) -> list[Finding]:
    """Installed packages against those that the tests run with."""
    findings: list[Finding] = []
    for name, tested in TESTED.items():
        version = found.get(name)
        if version is None:
            remedy = f"pip install {name}"
            findings.append(Finding("problem", name, "It is not installed.", remedy))
        elif not f"{version}.".startswith(f"{tested}."):
            told = f"{version}; the tests run with {tested}"
            remedy = f"Should something fail: pip install '{name}=={tested}.*'"
            findings.append(Finding("note", name, told, remedy))
        else:
            findings.append(Finding("fine", name, version))
    twice = [name for name in BACKENDS if name in found]
    if len(twice) > 1:
        findings.append(
            Finding(
                "problem",
                "backends",
                f"{' and '.join(twice)} install the same library file; the later won.",
                f"pip uninstall {' '.join(twice)}, then install one of "
                "'mlx-rsft[cpu]' and 'mlx-rsft[cuda13]'",
            )
        )
    return findings


def folder(topic: str, path: Path) -> Finding:
    """The size of a folder of kept files, and the room that is left beside it."""
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    there = path
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    told = f"{path}, {size / GIB:.2f} GiB; {free / GIB:.0f} GiB free"
    if free < LITTLE_DISK:
        return Finding("note", topic, told, f"To make room: du -sh {path}/*")
    return Finding("fine", topic, told)
