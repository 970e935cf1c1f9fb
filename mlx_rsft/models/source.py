"""From what the user calls a model to a folder on this disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlx_rsft import machine
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
        return _from_hub(source)
    raise ModelError(
        "This is no folder, .gguf file or Hub id (owner/name).",
        where=source,
        hint=f"Check --model; built in are {' and '.join(demo.MODELS)}.",
    )


def _converted(file: Path) -> Path:
    from mlx_rsft.models import gguf

    on_cpu = machine.backend() == "cpu"
    return gguf.as_folder(file, float_type="float32" if on_cpu else "half")


def _from_hub(repository: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cache = constants.HF_HUB_CACHE
    try:
        return Path(snapshot_download(repository, allow_patterns=list(WANTED)))
    except LocalEntryNotFoundError:
        offline = constants.HF_HUB_OFFLINE
        raise ModelError(
            f"The model is not in the cache folder {cache}, and the Hub "
            + (
                "is switched off by HF_HUB_OFFLINE."
                if offline
                else "cannot be reached."
            ),
            where=repository,
            hint="Unset HF_HUB_OFFLINE to download it, or pass a local folder."
            if offline
            else "Connect once to download it (then HF_HUB_OFFLINE=1 works without "
            "the network), or pass a local folder.",
        ) from None
    except (HfHubHTTPError, OSError) as problem:
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise ModelError(
            f"The Hub does not hand the model out: {first}",
            where=repository,
            hint="Check the name; for a gated model log in with: hf auth login."
            if not os.environ.get("HF_TOKEN")
            else "Check the name and whether HF_TOKEN may read it.",
        ) from None
