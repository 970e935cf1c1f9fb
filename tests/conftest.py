"""What every test may ask for."""

from pathlib import Path

import pytest

from mlx_rsft import files
from mlx_rsft.models import demo

USERS_CACHE = files.cache_folder()  # read now, before any test moves the cache


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo model, in the user's own cache so that it is downloaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_RSFT_CACHE", str(USERS_CACHE))
        return demo.gguf_file()
