import multiprocessing
import os

import pytest

from mlx_rsft.data import rendered
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import DataError, MachineError

ROWS = [
    Example(
        (5, 6, 7, 200_000),
        ((1, 2), (3, 4)),
        "f:1",
        "Größe",
        "a",
        ("x", "y"),
        0.5,
        ("Größe", "Höhe"),
    ),
    Example((9, 8), ((1, 2),), "f:2", "lone \ud800 half"),
    Example(tuple(range(1000)), ((1, 1000),), "f:3"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path))
    return tmp_path / rendered.FOLDER


def _never(outcome):
    raise AssertionError("it was rendered a second time")


def test_rows_come_back_as_they_were_by_place_slice_and_loop():
    made = rendered.cached("k", lambda _: iter(ROWS))
    assert list(made) == ROWS
    assert len(made) == 3
    assert made[-1] == ROWS[2]
    assert made[1:] == ROWS[1:]
    with pytest.raises(IndexError):
        made[3]


def test_rows_are_rendered_once_and_tell_again_what_was_left_out():
    def make(outcome):
        outcome["dropped"] += 2
        yield from ROWS

    assert rendered.cached("k", make).outcome == {"dropped": 2}
    again = rendered.cached("k", _never)
    assert again.outcome == {"dropped": 2}
    assert list(again) == ROWS


def test_an_error_on_the_way_leaves_nothing(cache):
    def make(_):
        yield ROWS[0]
        raise DataError("no")

    with pytest.raises(DataError):
        rendered.cached("k", make)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    assert list(rendered.cached("k", lambda _: iter(ROWS))) == ROWS


def test_the_sets_not_used_for_longest_go_first(cache, monkeypatch):
    for number, key in enumerate(["old", "used", "new"]):
        rendered.cached(key, lambda _: iter(ROWS))
        os.utime(cache / key, (number, number))
    size = sum(file.stat().st_size for file in (cache / "old").iterdir())
    monkeypatch.setattr(rendered, "MOST_BYTES", 2 * size + 1)
    rendered.cached("old", _never)
    rendered.cached("newest", lambda _: iter(ROWS))
    kept = {path.name for path in cache.iterdir() if path.is_dir()}
    assert kept == {"old", "newest"}


def test_what_other_processes_write_or_put_away_is_left_to_them(cache, monkeypatch):
    rendered.cached("old", lambda _: iter(ROWS))
    os.utime(cache / "old", (1, 1))
    (cache / ".being-written").mkdir()
    (cache / ".being-written" / "tokens").write_bytes(bytes(1000))
    os.utime(cache / ".being-written", (0, 0))
    (cache / "going").mkdir()
    (cache / "going" / "gone").symlink_to(cache / "nowhere")
    monkeypatch.setattr(rendered, "MOST_BYTES", 1)
    assert len(rendered.cached("new", lambda _: iter(ROWS))) == len(ROWS)
    kept = {path.name for path in cache.iterdir() if path.is_dir()}
    assert kept == {".being-written", "going", "new"}


def _render(_):
    return len(rendered.cached("k", lambda _: iter(ROWS)))


def test_many_processes_may_ask_at_once():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_render, range(8)) == [3] * 8


def test_a_cache_folder_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="MLX_RSFT_CACHE"):
        rendered.cached("k", lambda _: iter(ROWS))
