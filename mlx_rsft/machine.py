"""This machine: its BLAS, its memory, its power; Mac-only care behind a fake.

The Linux CPU wheel of mlx links the reference BLAS. OpenBLAS, loaded with global
symbols *before* ``mlx.core``, takes its place: the same wheel then multiplies matrices
many times faster. ``MLX_RSFT_BLAS=off`` leaves the reference in charge.
"""

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
from importlib.util import find_spec
from pathlib import Path

from mlx_rsft import files
from mlx_rsft.errors import MachineError

GFORTRAN = "libgfortran.so.5"
_blas = "reference"
_openblas: ctypes.CDLL | None = None


def load_blas() -> None:
    """Put OpenBLAS under mlx on Linux, once, before ``mlx.core`` is imported.

    Does nothing on other systems, without the ``cpu`` extra, or when switched off.
    A library that is installed and does not load is announced on stderr, because
    everything is then many times slower.
    """
    global _blas, _openblas
    if sys.platform != "linux":
        _blas = "system"
        return
    library = _find_openblas()
    if library is None or os.environ.get("MLX_RSFT_BLAS") == "off":
        return
    if "mlx.core" in sys.modules:
        _warn("mlx was imported before mlx_rsft, so OpenBLAS cannot take its place")
        return
    try:
        _openblas = _load_globally(library)
    except OSError as problem:
        _warn(f"OpenBLAS does not load ({problem})")
        return
    _blas = "openblas"


def _warn(reason: str) -> None:
    sys.stderr.write(f"mlx-rsft: {reason}; matrix products will be slow.\n")


def _find_openblas() -> Path | None:
    spec = find_spec("numpy")  # lives in the same site-packages; finding is not loading
    if spec is None or spec.origin is None:
        return None
    site = Path(spec.origin).parent.parent
    library = site / "cmeel.prefix" / "lib" / "libopenblas.so"
    return library if library.exists() else None


def blas_threads() -> int:
    """Threads that a matrix product may use, as far as that can be told; else 1."""
    return _openblas.openblas_get_num_threads() if _openblas else 1


@contextlib.contextmanager
def blas_shared(parts: int) -> Generator[None]:
    """Let each of ``parts`` products that run at once have its share of the threads."""
    if _openblas is None:
        yield
        return
    before = blas_threads()
    _openblas.openblas_set_num_threads(max(1, before // parts))
    try:
        yield
    finally:
        _openblas.openblas_set_num_threads(before)


def _load_globally(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as problem:
        if GFORTRAN not in str(problem):
            raise
        _load_bundled_gfortran(library.parents[2] / "mlx_cpu.libs")
        return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _load_bundled_gfortran(folder: Path) -> None:
    """Load the Fortran runtime that the mlx wheel carries, under its plain name.

    Wheels rename the libraries they bundle, in the file and inside it; OpenBLAS asks
    for the plain name. A copy with the plain name inside satisfies it, so that no
    system package is needed.
    """
    bundled = next(folder.glob("libgfortran-*.so*"), None)
    quadmath = next(folder.glob("libquadmath-*.so*"), None)
    if bundled is None or quadmath is None:
        raise OSError(f"{GFORTRAN} is missing; the system package libgfortran5 has it")
    renamed = files.cache_folder() / "lib" / bundled.name / GFORTRAN
    if not renamed.exists():
        with files.new_folder(renamed.parent) as folder:
            old, new = bundled.name.encode() + b"\0", GFORTRAN.encode()
            content = bundled.read_bytes().replace(old, new.ljust(len(old), b"\0"))
            (folder / GFORTRAN).write_bytes(content)
    ctypes.CDLL(str(quadmath), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(renamed), mode=ctypes.RTLD_GLOBAL)


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
        blas=_blas,
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
