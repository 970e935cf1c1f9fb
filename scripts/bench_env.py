"""The Python that a peer runs in: ours for mlx-lm, one of its own for mlx-lm-lora.

The second environment has the same mlx, mlx-lm and BLAS as the first. It is made once,
in the user's cache, because what mlx-lm-lora needs is no business of ``.venv``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlx_rsft import files

ROOT = Path(__file__).resolve().parent.parent
OWN = "mlx-lm"
APART = {"mlx-lm-lora": "mlx-lm-lora==5.10.2"}
NAMES = (OWN, *APART)
SAME = (
    *("mlx", "mlx-cpu", "mlx-metal", "mlx-lm", "cmeel-openblas"),
    *("transformers", "tokenizers", "numpy"),
)
READY = "ready"


def versions() -> dict[str, str]:
    """What both environments share, as it is in this one."""
    found: dict[str, str] = {}
    for name in SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of another operating system
            continue
    return found


def python(peer: str, tell: Callable[[str], None]) -> str:
    """The interpreter to start a peer with; makes its environment where it is missing.

    Raises:
        CalledProcessError: If the environment cannot be made; pip says why on stderr.
    """
    if peer not in APART:
        return sys.executable
    wanted = [f"{name}=={found}" for name, found in versions().items()]
    wanted.append(APART[peer])
    key = hashlib.sha256(repr((wanted, sys.version, str(ROOT))).encode()).hexdigest()
    folder = files.cache_folder() / "bench" / f"{peer}-{key[:12]}"
    interpreter = folder / "bin" / "python"
    with files.alone(folder.with_name(f".{folder.name}.lock")):
        if not (folder / READY).exists():
            tell(f"Installing {APART[peer]} into {folder} ...")
            _make(folder, interpreter, wanted)
    return str(interpreter)


def _make(folder: Path, interpreter: Path, wanted: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    install = [interpreter, "-m", "pip", "install", "--disable-pip-version-check"]
    ours = ["--no-deps", "--editable", str(ROOT)]  # only its mlx_rsft.machine is used
    for what in (wanted, ours):
        subprocess.run([*install, "-qq", *what], check=True, stdout=sys.stderr)
    (folder / READY).write_text("")
