"""Shared fixtures: a tiny model and data on disk, and the demo model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mlx_rsft import files, testing
from mlx_rsft.models import demo

USERS_CACHE = files.cache_folder()  # read now, before any test moves the cache


@pytest.fixture(scope="session", autouse=True)
def _heeding_interrupts() -> None:
    """Children inherit an ignored Ctrl-C, as under nohup; here they are to heed it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo model, in the user's own cache so that it is downloaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_RSFT_CACHE", str(USERS_CACHE))
        return demo.gguf_file()


@pytest.fixture(scope="session")
def gemma_gguf() -> Path:
    """The built-in Gemma 3 270M, kept where the demo model is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_RSFT_CACHE", str(USERS_CACHE))
        return demo.gguf_file("demo-gemma")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny model on disk; not to be changed."""
    return testing.write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data folder with four splits; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", 20), ("valid", 4), ("test", 6), ("test_shifted", 6)):
        pairs = [(f"{name} {n}", f"{n}") for n in range(rows)]
        write_rows(folder / f"{name}.jsonl", pairs)
    return folder


def write_rows(path: Path, pairs: list[tuple[str, str]]) -> Path:
    """A data file with one question and answer per row."""
    lines = [json.dumps({"prompt": q, "completion": a}) for q, a in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
