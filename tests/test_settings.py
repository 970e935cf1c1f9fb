import json

import pytest

from mlx_rsft import config
from mlx_rsft.config import resolve
from mlx_rsft.keys import KEYS, read
from mlx_rsft.settings import Config


@pytest.mark.parametrize("name", KEYS)
def test_every_setting_is_explained_and_its_default_passes_its_own_checks(name):
    assert KEYS[name].about.endswith(".")
    default = read(Config(), name)
    if default == "":
        return
    written = list(default) if isinstance(default, tuple) else default
    given = config.from_assignments([f"{name}={json.dumps(written)}"])
    resolved = resolve([given])
    assert read(resolved.config, name) == default
    assert resolved.is_given(name)
