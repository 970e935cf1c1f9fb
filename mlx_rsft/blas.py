"""The BLAS under mlx's CPU backend on Linux.

The Linux CPU wheel of mlx links the reference BLAS. OpenBLAS, loaded with global
symbols *before* ``mlx.core``, takes its place: the same wheel then multiplies matrices
many times faster. ``MLX_RSFT_BLAS=off`` leaves the reference in charge.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Generator, Mapping
from importlib.util import find_spec
from pathlib import Path

from mlx_rsft import files

GFORTRAN = "libgfortran.so.5"
NEEDS: Mapping[str, str] = {
    **dict.fromkeys(("SKYLAKEX", "COOPERLAKE", "SAPPHIRERAPIDS"), "avx512f"),
    **dict.fromkeys(("HASWELL", "ZEN"), "avx2"),
}
"""What a processor must be capable of, by the kernels that an OpenBLAS runs."""
_in_charge = "reference"
_openblas: ctypes.CDLL | None = None


def load() -> None:
    """Put OpenBLAS under mlx on Linux, once, before ``mlx.core`` is imported.

    Does nothing on other systems, without the ``cpu`` extra, or when switched off.
    A library that is installed and cannot be used is announced on stderr, because
    everything is then many times slower.
    """
    global _in_charge, _openblas
    if sys.platform != "linux":
        _in_charge = "system"
        return
    library = _find()
    if library is None or os.environ.get("MLX_RSFT_BLAS") == "off":
        return
    if "mlx.core" in sys.modules:
        _warn("mlx was imported before mlx_rsft, so OpenBLAS cannot take its place")
        return
    try:
        _openblas = _loaded(library)
    except OSError as problem:
        _warn(f"OpenBLAS does not load ({problem})")
        return
    _in_charge = "openblas"


def in_charge() -> str:
    """``openblas``, ``reference``, or ``system`` where the system has its own."""
    return _in_charge


def threads() -> int:
    """Threads that a matrix product may use, as far as that can be told; else 1."""
    return _openblas.openblas_get_num_threads() if _openblas else 1


@contextlib.contextmanager
def shared(parts: int) -> Generator[None]:
    """Let each of ``parts`` products that run at once have its share of the threads."""
    if _openblas is None:
        yield
        return
    before = threads()
    _openblas.openblas_set_num_threads(max(1, before // parts))
    try:
        yield
    finally:
        _openblas.openblas_set_num_threads(before)


def lacking(core: str, processor: str) -> str:
    """What a processor cannot do and a library would do; empty if it fits.

    Args:
        core: What the library names its kernels by. One that is built for several
            processors names those that it has chosen here.
        processor: The text of ``/proc/cpuinfo``.
    """
    needed = NEEDS.get(core.upper(), "")
    return "" if needed in processor.split() else needed


def _warn(reason: str) -> None:
    sys.stderr.write(f"mlx-rsft: {reason}; matrix products will be slow.\n")


def _find() -> Path | None:
    spec = find_spec("numpy")  # lives in the same site-packages; finding is not loading
    if spec is None or spec.origin is None:
        return None
    site = Path(spec.origin).parent.parent
    library = site / "cmeel.prefix" / "lib" / "libopenblas.so"
    return library if library.exists() else None


def _loaded(library: Path) -> ctypes.CDLL:
    """The library with global symbols, if this processor can run it."""
    _require_fit(_opened(library, ctypes.RTLD_LOCAL))
    return _opened(library, ctypes.RTLD_GLOBAL)


def _require_fit(library: ctypes.CDLL) -> None:
    library.openblas_get_corename.restype = ctypes.c_char_p
    core = library.openblas_get_corename().decode()
    lacks = lacking(core, Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    if lacks:
        raise OSError(
            f"it is built for {core}, and this processor has no {lacks}; "
            "pip install 'mlx-rsft[cpu]' brings one that fits"
        )


def _opened(library: Path, mode: int) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library), mode=mode)
    except OSError as problem:
        if GFORTRAN not in str(problem):
            raise
        _load_bundled_gfortran(library.parents[2] / "mlx_cpu.libs")
        return ctypes.CDLL(str(library), mode=mode)


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
