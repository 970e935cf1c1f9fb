"""This machine: what computes, its memory, its power; Mac-only care behind a fake."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mlx_rsft import blas
from mlx_rsft.errors import MachineError

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
MOST_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what mlx frees, on Linux; it asks for it again at once.

    mlx's CPU backend has no buffers of its own. By default every large array is mapped
    anew, and touching its fresh pages takes longer than most operations on them.
    ``MLX_RSFT_MALLOC=off`` leaves the default.
    """
    if sys.platform != "linux" or os.environ.get("MLX_RSFT_MALLOC") == "off":
        return
    set_option = getattr(
        ctypes.CDLL(None), "mallopt", None
    )  # not all libraries have it
    if set_option is not None:
        set_option(MMAP_MAX, 0)
        set_option(TRIM_THRESHOLD, MOST_KEPT)


def require_backend() -> None:
    """Raise unless an mlx backend is installed (on Linux, plain mlx brings none).

    Raises:
        MachineError: If ``mlx.core`` cannot be imported; names the extras to install.
    """
    try:
        importlib.import_module("mlx.core")
    except ImportError as problem:
        rosetta = sys.platform == "darwin" and platform.machine() != "arm64"
        raise MachineError(
            f"mlx cannot be loaded on this machine ({problem}).",
            hint="Install a Python built for arm64; this one runs under Rosetta."
            if rosetta
            else "On Linux install mlx-rsft[cpu] or mlx-rsft[cuda13], not both.",
        ) from problem


@dataclass(frozen=True, slots=True)
class Device:
    """What computes, as recorded in every manifest. Sizes are bytes, 0 if unknown."""

    system: str
    architecture: str
    python: str
    backend: str
    name: str
    blas: str
    cores: int
    memory_bytes: int
    working_set_bytes: int

    def as_record(self) -> dict[str, str | int]:
        return asdict(self)


def device() -> Device:
    """The facts of this machine; loads mlx."""
    require_backend()
    import mlx.core as mx

    info = mx.device_info()
    return Device(
        system=platform.platform(),
        architecture=platform.machine(),
        python=platform.python_version(),
        backend=backend(),
        name=str(info.get("device_name", "")),
        blas=blas.in_charge(),
        cores=os.cpu_count() or 0,
        memory_bytes=_memory_bytes(),
        working_set_bytes=int(info.get("max_recommended_working_set_size", 0)),
    )


def backend() -> str:
    """``metal``, ``cuda`` or ``cpu``: where mlx computes by default."""
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


LAUNCHERS = {
    "MLX_HOSTFILE": "ring",
    "MLX_JACCL_COORDINATOR": "jaccl",
    "NCCL_HOST_IP": "nccl",
    "OMPI_COMM_WORLD_SIZE": "mpi",
    "PMI_SIZE": "mpi",
}
"""What a launcher of several processes sets, and how those are then connected."""


def launched_by() -> str:
    """By what this process is connected with others; empty if it is alone."""
    for name, backend in LAUNCHERS.items():
        held = os.environ.get(name, "")
        counts = name.endswith("_SIZE")
        if held and not (held == "1" if counts else backend == "ring" and _empty(held)):
            return backend
    return ""


def _empty(path: str) -> bool:
    """Whether a file holds nothing: the hosts of a single process."""
    return Path(path).is_file() and not Path(path).read_text().strip()


Start = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


class Awake:
    """Holds idle sleep off on a Mac; elsewhere there is nothing to hold."""

    def __init__(self, start: Start = _start) -> None:
        self._start = start
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def is_held(self) -> bool:
        return self._holder is not None

    def hold(self) -> None:
        """``caffeinate`` watches this process, so it ends even if we are killed."""
        if shutil.which("caffeinate"):
            words = ["caffeinate", "-i", "-m", "-w", str(os.getpid())]
            self._holder = self._start(words)

    def release(self) -> None:
        if self._holder:
            self._holder.terminate()
            self._holder.wait()
            self._holder = None

    @contextlib.contextmanager
    def let_go(self) -> Generator[None]:
        """Let the machine sleep while the block runs."""
        self.release()
        try:
            yield
        finally:
            self.hold()


@contextlib.contextmanager
def kept_awake(start: Start = _start) -> Generator[Awake]:
    """Hold idle sleep off while the block runs."""
    awake = Awake(start)
    awake.hold()
    try:
        yield awake
    finally:
        awake.release()


@contextlib.contextmanager
def wired_memory(working_set_bytes: int) -> Generator[None]:
    """Keep up to ``working_set_bytes`` resident on Metal, restore the limit after.

    With 0, as on every backend but Metal, the block runs unchanged.
    """
    if working_set_bytes <= 0:
        yield
        return
    import mlx.core as mx

    before = mx.set_wired_limit(working_set_bytes)
    try:
        yield
    finally:
        mx.set_wired_limit(before)
