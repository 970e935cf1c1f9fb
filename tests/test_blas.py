import os
import subprocess
import sys

import pytest

from mlx_rsft import blas

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="BLAS swap is Linux's")

MULTIPLY = """
import sys, time
import mlx_rsft
from mlx_rsft import machine
import mlx.core as mx
a = mx.random.normal((768, 768))
mx.eval(a @ a)
began = time.perf_counter()
mx.eval(a @ a, a @ a.T)
print(machine.device().blas, 4 * 768**3 / (time.perf_counter() - began) / 1e9)
print([line for line in open("/proc/self/maps") if "openblas" in line][:1])
"""


def _python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


@linux_only
def test_openblas_takes_the_place_of_the_reference_and_can_be_switched_off():
    fast, mapped = _python(MULTIPLY).stdout.splitlines()
    slow, unmapped = _python(MULTIPLY, MLX_RSFT_BLAS="off").stdout.splitlines()
    assert fast.split()[0] == "openblas"
    assert slow.split()[0] == "reference"
    assert "libopenblas" in mapped
    assert unmapped == "[]"
    assert float(fast.split()[1]) > 3 * float(slow.split()[1])


@linux_only
def test_openblas_needs_no_fortran_runtime_of_the_system(tmp_path):
    code = (
        "import ctypes\n"
        "from mlx_rsft import blas\n"
        "blas._load_bundled_gfortran(blas._find().parents[2] / 'mlx_cpu.libs')\n"
        "print(ctypes.CDLL('libgfortran.so.5')._name)\n"
        "print(open('/proc/self/maps').read().count('lib/libgfortran'))\n"
    )
    ran = _python(code, MLX_RSFT_CACHE=str(tmp_path), MLX_RSFT_BLAS="off")
    assert ran.stdout.splitlines()[0] == "libgfortran.so.5"
    assert list(tmp_path.rglob("libgfortran.so.5"))


@linux_only
def test_mlx_imported_too_early_is_announced():
    ran = _python("import mlx.core, mlx_rsft")
    assert "imported before" in ran.stderr


MISFIT = """
import os, mlx_rsft
from mlx_rsft import blas
blas.lacking = lambda core, processor: "wings"
del os.environ["MLX_RSFT_BLAS"]
blas.load()
import mlx.core as mx
print(blas.in_charge(), blas.threads(), (mx.ones((9, 9)) @ mx.ones((9, 9))).sum().item())
"""


@linux_only
def test_a_library_that_this_processor_cannot_run_is_announced_and_left_alone():
    ran = _python(MISFIT, MLX_RSFT_BLAS="off")
    assert ran.stdout.split() == ["reference", "1", "729.0"]
    assert "this processor has no wings; pip install" in ran.stderr


@pytest.mark.parametrize(
    ("core", "flags", "lacks"),
    [
        ("SKYLAKEX", "sse2 avx2", "avx512f"),
        ("SkylakeX", "sse2 avx2 avx512f", ""),
        ("ZEN", "sse2 avx", "avx2"),
        ("Zen", "sse2 avx avx2", ""),
        ("ARMV8", "asimd", ""),
    ],
)
def test_what_a_processor_lacks_for_a_library_is_named(core, flags, lacks):
    assert blas.lacking(core, f"model : x\nflags : {flags}\nbugs :\n") == lacks
