"""Runs of an earlier comparison that were cut off: whose they are, and what is left."""

import pytest

from mlx_rsft import rundir
from mlx_rsft.errors import RunError
from mlx_rsft.workflows import compare
from mlx_rsft.workflows.compare import Request
from mlx_rsft.workflows.reporter import Silent

from .conftest import short_run


class StopError(Exception):
    """Stands for whatever ends a process in the middle of a run."""


class Stopping(Silent):
    def task(self, title, total):
        if title == "validate":
            raise StopError
        return super().task(title, total)


@pytest.fixture
def cut(tmp_path, tiny_folder, tiny_data):
    """A comparison that was cut off in its first run: that run, and how it goes on."""
    settings, out = short_run(tiny_folder, tiny_data), tmp_path / "out"
    request = Request(arms=("sft", "dft"), out=out, seeds=1)
    with pytest.raises(StopError):
        compare.compare(settings, request, Stopping())

    def go():
        return compare.compare(settings, request, Silent())

    return out / "runs" / "sft-seed0", go


def _files(run):
    found = [path for path in run.rglob("*") if path.is_file()]
    return {path.relative_to(run): path.read_bytes() for path in found}


def test_a_run_that_another_process_trains_is_not_removed(cut):
    run, go = cut
    before = _files(run)
    assert before
    with (
        rundir.held(run),
        pytest.raises(RunError, match="Another process trains") as problem,
    ):
        go()
    assert problem.value.where == str(run)
    assert _files(run) == before
    assert go()["arms"][1]["seeds"] == [0]


def test_a_run_that_another_process_has_finished_meanwhile_is_kept(cut, monkeypatch):
    run, go = cut
    real = rundir.held

    done = {}

    def held_late(path):
        """The other process has it first, and finishes it."""
        monkeypatch.setattr(rundir, "held", real)
        go()
        done.update(_files(run))
        return real(path)

    monkeypatch.setattr(rundir, "held", held_late)
    assert go()["arms"][1]["seeds"] == [0]
    assert done
    assert _files(run) == done


def test_what_a_kill_leaves_before_a_run_has_begun_is_no_obstacle(cut):
    run, go = cut
    rundir.clear(run)
    (run / rundir.PENDING).write_text("seed = 0")
    (run / ".manifest.json.0a1b2c3d").write_text("{")
    assert go()["arms"][1]["seeds"] == [0]


def test_a_folder_of_something_else_is_never_removed(cut):
    run, go = cut
    rundir.clear(run)
    (run / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="is no run"):
        go()
    assert (run / "letter.txt").read_text() == "dear"
