import dataclasses

import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters, load
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk_store import FolderStore, MemoryStore
from mlx_rsft.settings import AdapterSettings, ModelSettings, TrainingSettings
from mlx_rsft.workflows import caching
from mlx_rsft.workflows.caching import Passes

ROWS = [Example(tuple(range(1, n + 9)), ((2, 5),), "f:1") for n in range(6)]


class Notes:
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path))
    return tmp_path


def _trunk(folder, epochs=3.0, layers="last:1", **changes):
    loaded = load.load(ModelSettings(source=str(folder)))
    adapters.attach(loaded.model, AdapterSettings(rank=2, layers=layers))
    split, notes = SplitModel(loaded.model), Notes()
    settings = TrainingSettings(**changes)
    passes = Passes(training=epochs)
    return caching.trunk(settings, loaded, split, ROWS, passes, notes), notes.said


def test_it_is_chosen_by_itself_where_it_pays_and_says_what_it_brings(tiny_folder):
    trunk, said = _trunk(tiny_folder)
    assert isinstance(trunk._store, MemoryStore)
    assert trunk.depth == 2
    assert "2 of 3 blocks computed once" in said[0]
    assert "fewer operations" in said[0]


def test_one_pass_over_the_rows_needs_none(tiny_folder):
    assert _trunk(tiny_folder, epochs=1.0) == (None, [])


def test_what_does_not_fit_in_memory_goes_to_disk(tiny_folder, cache):
    trunk, said = _trunk(tiny_folder, trunk_gb=1e-6)
    assert isinstance(trunk._store, FolderStore)
    assert str(cache) in said[0]


def test_it_can_be_named_or_switched_off(tiny_folder, cache):
    assert _trunk(tiny_folder, trunk_cache="off") == (None, [])
    trunk, _ = _trunk(tiny_folder, epochs=1.0, trunk_cache="disk")
    trunk.states([ROWS[0].tokens], 16)
    trunk.close()
    again, _ = _trunk(tiny_folder, epochs=1.0, trunk_cache="disk")
    again.states([ROWS[0].tokens], 16)
    assert (again.stats.hits, again.stats.misses) == (1, 0)


def test_named_where_it_cannot_be_it_is_refused(tiny_folder):
    with pytest.raises(ConfigError, match="no block lies below"):
        _trunk(tiny_folder, layers="all", trunk_cache="memory")
    assert _trunk(tiny_folder, layers="all") == (None, [])


def test_a_model_it_does_not_fit_runs_without_and_says_so(tiny_folder, monkeypatch):
    monkeypatch.setattr(caching, "why_not", lambda *_: "its blocks are odd")
    trunk, said = _trunk(tiny_folder)
    assert trunk is None
    assert said == ["trunk cache: none, because its blocks are odd."]
    with pytest.raises(ConfigError, match="blocks are odd"):
        _trunk(tiny_folder, trunk_cache="memory")


def test_weights_in_another_precision_have_another_identity(tiny_folder):
    plain = load.load(ModelSettings(source=str(tiny_folder)))
    half = load.load(ModelSettings(source=str(tiny_folder), precision="bfloat16"))
    assert plain.weights() != half.weights()
    other = dataclasses.replace(plain, source="elsewhere")
    assert other.weights() == plain.weights()
