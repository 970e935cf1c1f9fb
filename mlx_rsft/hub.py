"""Repositories of the Hugging Face Hub, as folders on this disk.

The one place that knows what can go wrong on the way. Tokens and ``HF_HUB_OFFLINE`` are
heeded by the library underneath.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.errors import RsftError, RunError


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


@dataclass(frozen=True, slots=True)
class State:
    """How the Hub is set up here: its address, its cache folder, and whether it is off."""

    endpoint: str
    cache: Path
    offline: bool


def state() -> State:
    """Read from the library's own settings; asks nobody."""
    from huggingface_hub import constants

    offline = bool(constants.HF_HUB_OFFLINE)
    return State(constants.ENDPOINT, Path(constants.HF_HUB_CACHE), offline)


def cached(repository: str) -> Path | None:
    """The folder of a model that is on this disk already; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def unreachable(endpoint: str, timeout_s: float = 5.0) -> str:
    """Why the Hub does not answer, in a few words; empty if it does."""
    try:
        with urllib.request.urlopen(endpoint, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError:
        return ""  # an answer, if not a friendly one
    except (OSError, ValueError) as problem:
        return str(getattr(problem, "reason", problem)) or type(problem).__name__


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Make a model repository if there is none, and put a folder's files into it.

    Returns:
        The address of what was uploaded.

    Raises:
        RunError: If the Hub cannot be reached or does not take it.
    """
    from huggingface_hub import HfApi, errors

    http_error: Any = getattr(errors, "HTTPError")  # noqa: B009, of httpx or httpx2
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload a fine-tuned model",
        )
    except (http_error, OSError, ValueError) as problem:
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise RunError(
            f"The Hub does not take it: {first}",
            where=repository,
            hint="Log in with a token that may write: hf auth login. What was exported "
            "is still there.",
        ) from None
    return str(done.commit_url)
