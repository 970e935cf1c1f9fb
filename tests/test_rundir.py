import pytest

from mlx_rsft import rundir
from mlx_rsft.errors import RunError


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path):
    (tmp_path / "keep").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        rundir.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_checking_leaves_nothing_behind(tmp_path):
    rundir.check_free(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="file"):
            rundir.check_free(path)


def test_an_empty_folder_may_be_used(tmp_path):
    assert rundir.create(tmp_path).adapter == tmp_path / "adapter"
