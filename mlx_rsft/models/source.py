"""From what the user calls a model to a folder on this disk."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_rsft import hub, machine
from mlx_rsft.errors import ModelError
from mlx_rsft.models import demo
from mlx_rsft.models.download import Report

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "*.py")


def as_folder(source: str, report: Report | None = None) -> Path:
    """The folder of a model, fetched or converted first where that is needed.

    Args:
        source: A built-in name, a local folder, a ``.gguf`` file, or a Hub id.
        report: Told done and total bytes while a built-in model is fetched.

    Raises:
        ModelError: If there is no such model, or it cannot be reached.
    """
    path = Path(source).expanduser()
    if source in demo.MODELS:
        return _converted(demo.gguf_file(source, report))
    if path.is_dir():
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError("There is no such file.", where=source)
        return _converted(path)
    if HUB_ID.fullmatch(source):
        return hub.folder(source, WANTED, ModelError)
    raise ModelError(
        "This is no folder, .gguf file or Hub id (owner/name).",
        where=source,
        hint=f"Check --model; built in are {' and '.join(demo.MODELS)}.",
    )


def is_gguf(source: str) -> bool:
    """Whether the weights come from a ``.gguf`` file."""
    return source in demo.MODELS or source.endswith(".gguf")


def _converted(file: Path) -> Path:
    from mlx_rsft.models import gguf

    on_cpu = machine.backend() == "cpu"
    return gguf.as_folder(file, float_type="float32" if on_cpu else "half")
