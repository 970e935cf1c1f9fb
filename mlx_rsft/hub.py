"""Repositories of the Hugging Face Hub, as folders on this disk.

The one place that knows what can go wrong on the way. Tokens and ``HF_HUB_OFFLINE`` are
heeded by the library underneath.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_rsft.errors import RsftError


def folder(
    repository: str,
    wanted: Sequence[str],
    error: type[RsftError],
    *,
    kind: str = "model",
    revision: str | None = None,
) -> Path:
    """The folder of a repository, with the wanted files fetched where they are not.

    Args:
        repository: ``owner/name``.
        wanted: Patterns of the files.
        error: What to raise.
        kind: ``model`` or ``dataset``.
        revision: Branch, tag or commit; by default the newest.

    Raises:
        RsftError: As ``error``, if the repository is not there or cannot be reached.
    """
    from huggingface_hub import errors, snapshot_download

    http_error: Any = getattr(errors, "HTTPError")  # noqa: B009, of httpx or httpx2
    try:
        return Path(
            snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(wanted),
            )
        )
    except errors.LocalEntryNotFoundError:
        raise _unreachable(repository, kind, error) from None
    except (http_error, OSError, ValueError) as problem:
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise error(
            f"The Hub does not hand the {kind} out: {first}",
            where=repository,
            hint=f"Check the name; for a gated {kind} log in with: hf auth login."
            if not os.environ.get("HF_TOKEN")
            else "Check the name and whether HF_TOKEN may read it.",
        ) from None


def _unreachable(repository: str, kind: str, error: type[RsftError]) -> RsftError:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    why = "is switched off by HF_HUB_OFFLINE." if offline else "cannot be reached."
    return error(
        f"The {kind} is not, or not whole, in the cache folder "
        f"{constants.HF_HUB_CACHE}, and the Hub {why}",
        where=repository,
        hint="Unset HF_HUB_OFFLINE to download it, or pass a local folder."
        if offline
        else "Connect once to download it (then HF_HUB_OFFLINE=1 works without the "
        "network), or pass a local folder.",
    )
