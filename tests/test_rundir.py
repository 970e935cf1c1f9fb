import pytest

from mlx_rsft import files, rundir
from mlx_rsft.errors import RunError


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path):
    (tmp_path / "keep").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        rundir.check_free(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_checking_leaves_nothing_behind(tmp_path):
    rundir.check_free(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="file"):
            rundir.check_free(path)


def test_an_empty_folder_may_be_used_and_one_that_a_kill_has_left_before_it_began(
    tmp_path,
):
    rundir.check_free(tmp_path)
    with rundir.held(tmp_path) as run:
        run.pending.write_text("seed = 0")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files.Path, "replace", _killed)
            patch.setattr(files.Path, "unlink", _killed)
            for path in (run.manifest, run.pending):
                with pytest.raises(KeyboardInterrupt):
                    files.write_text(path, "half")
    assert len(list(tmp_path.iterdir())) == 4
    rundir.check_free(tmp_path)


def _killed(*_, **__):
    raise KeyboardInterrupt


def test_a_run_is_cleared_but_for_its_lock_and_its_manifest_goes_last(
    tmp_path, monkeypatch
):
    with rundir.held(tmp_path) as run:
        for path in (run.config, run.manifest, run.steps, run.salt):
            path.touch()
        (run.checkpoints / "step-000001").mkdir(parents=True)
        gone, unlink = [], files.Path.unlink
        monkeypatch.setattr(files.Path, "unlink", lambda p: gone.append(p) or unlink(p))
        rundir.clear(tmp_path)
    assert gone[-1] == run.manifest
    assert [path.name for path in tmp_path.iterdir()] == [rundir.LOCK]


def test_settings_get_their_name_once(tmp_path):
    run = rundir.RunDir(tmp_path)
    run.pending.write_text("seed = 0")
    run.settle()
    run.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_run_is_for_one_process_at_a_time(tmp_path):
    with (
        rundir.held(tmp_path / "run"),
        pytest.raises(RunError, match="Another process trains"),
        rundir.held(tmp_path / "run"),
    ):
        pytest.fail("both have it")
    with rundir.held(tmp_path / "run"):
        pass
