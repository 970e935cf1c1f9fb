"""Memory, disks and folders that fail in the middle of a run, and what is said then."""

import errno
import os
import re
import shutil
import signal
from contextlib import contextmanager

import pytest

from mlx_rsft import config, records
from mlx_rsft.errors import Interrupted, MachineError, RunError
from mlx_rsft.models import tensor_file
from mlx_rsft.rundir import RunDir
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import compare, mishaps, sizing, train
from mlx_rsft.workflows.compare import Request
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening, outcome, short_run

METAL = (
    "[METAL] Command buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
SHORTAGES = (
    MemoryError("std::bad_alloc"),
    RuntimeError(METAL),
    RuntimeError("[malloc_or_wait] Unable to allocate 34359738368 bytes."),
    RuntimeError("[malloc] Unable to allocate 34359738368 bytes."),
    RuntimeError(
        "[metal::malloc] Attempting to allocate 34359738368 bytes which is greater than "
        "the maximum allowed buffer size of 14392352768 bytes."
    ),
    RuntimeError("[metal::malloc] Resource limit (499000) exceeded."),
    RuntimeError("cudaMallocAsync(&data, size, stream) failed: out of memory"),
)


class Failing(Silent):
    """Does something to a run right after some step."""

    def __init__(self, after, what):
        self._after, self._what = after, what

    @contextmanager
    def task(self, title, total):
        step = 0

        def advance(done, text=""):
            nonlocal step
            step += done
            if title.startswith("train") and text and step == self._after:
                self._what()

        yield advance


@pytest.fixture
def run(tmp_path, tiny_folder, tiny_data):
    """Trains copies of model and rows, and does something to the run after step 5."""

    def go(what, after=5):
        shutil.copytree(tiny_folder, tmp_path / "model")
        shutil.copytree(tiny_data, tmp_path / "data")
        more = {"training__steps": 7, "training__checkpoint_every": 2}
        given = short_run(
            tmp_path / "model", tmp_path / "data", objective__name="sft", **more
        )
        folder = tmp_path / "run"
        job = train.prepare(given, folder, Silent())
        train.train(job, folder, Failing(after, what))

    go.path, go.folder = tmp_path, tmp_path / "run"
    return go


def _raise(problem):
    raise problem


def _resumed(run):
    job = train.prepare_again(config.resolve([]), run.folder, Silent())
    return train.train(job, run.folder, Silent())


def test_what_means_that_memory_ran_out_is_recognised_and_nothing_else_is():
    assert all(map(mishaps.is_shortage, SHORTAGES))
    others = (RuntimeError("[matmul] shapes differ"), ValueError("out of memory"))
    assert not any(map(mishaps.is_shortage, others))


@pytest.mark.parametrize("problem", SHORTAGES[:2])
def test_memory_that_runs_out_is_named_with_the_plan_and_the_checkpoint_stands(
    problem, run, monkeypatch
):
    tight = sizing.Where("this machine", 250_000, 1_000_000, stock=False)
    monkeypatch.setattr(sizing, "here", lambda: tight)
    with pytest.raises(MachineError) as caught:
        run(lambda: _raise(problem))
    told = caught.value
    assert f"ran out after 5 of 7 steps ({problem})" in told.message
    assert "By the plan it holds 0.0 GiB at its peak; this machine has 0.0" in str(told)
    again = f"mlx-rsft train --run-dir {run.folder} --resume"
    assert f"The checkpoint of step 4 stands; to go on from it: {again}." in told.hint
    assert "--set training.token_budget=" in told.hint
    monkeypatch.undo()
    assert _resumed(run)["steps"] == 7


def test_a_run_that_ought_to_have_fitted_says_so_and_what_would_take_less(run):
    with pytest.raises(MachineError) as caught:
        run(lambda: _raise(MemoryError()))
    assert "if nothing else takes them: close other programs" in caught.value.message
    assert "A run begun anew with --set training.token_budget=" in caught.value.hint


def test_the_advice_is_settings_that_the_plan_finds_to_fit(run, monkeypatch):
    seen = []
    real = sizing.estimate
    monkeypatch.setattr(
        sizing, "estimate", lambda c, *more: seen.append(c) or real(c, *more)
    )
    with pytest.raises(MachineError) as caught:
        run(lambda: _raise(MemoryError()))
    budget = int(re.search(r"token_budget=(\d+)", caught.value.hint)[1])
    assert budget in {config.training.token_budget for config in seen}


def test_where_even_the_plan_finds_no_room_the_way_to_go_on_is_told(run, monkeypatch):
    monkeypatch.setattr(sizing, "estimate", lambda *_: _raise(MemoryError()))
    with pytest.raises(MachineError, match=r"--resume\. mlx-rsft plan, with the same"):
        run(lambda: _raise(MemoryError()))


def test_the_displays_watchdog_is_named_and_a_bug_stays_a_bug(run):
    said = "kIOGPUCommandBufferCallbackErrorImpactingInteractivity"
    with pytest.raises(MachineError, match=r"display sleep.*step 4 stands"):
        run(lambda: _raise(RuntimeError(f"[METAL] failed: {said}")))
    shutil.rmtree(run.path / "model"), shutil.rmtree(run.path / "data")
    shutil.rmtree(run.folder)
    with pytest.raises(RuntimeError, match="a bug"):
        run(lambda: _raise(RuntimeError("a bug")))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"MB are free there; a checkpoint takes 0\.\d MB, and \d are"),
        (errno.EROFS, "can only be read: mount it"),
        (errno.EACCES, "Give back the right"),
    ],
)
def test_a_disk_that_fails_is_named_with_numbers_and_the_run_goes_on(
    number, said, run, monkeypatch
):
    def failing(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(RunError, match=os.strerror(number)) as caught:
        run(lambda: monkeypatch.setattr(records, "append", failing))
    assert re.search(said, caught.value.hint)
    assert "The checkpoint of step 4 stands; to go on from it:" in caught.value.hint
    monkeypatch.undo()
    assert _resumed(run)["steps"] == 7


def test_a_checkpoint_that_a_read_only_disk_refuses_is_named_by_its_step(
    run, monkeypatch
):
    def failing(path, _):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with pytest.raises(RunError, match="checkpoint of step 6") as caught:
        run(lambda: monkeypatch.setattr(tensor_file, "write", failing))
    assert "mount it" in caught.value.hint
    assert "step 4 stands" in caught.value.hint
    monkeypatch.undo()
    assert _resumed(run)["steps"] == 7


@pytest.mark.parametrize("after", [5, 6, 7])  # before a step, a checkpoint, the end
def test_a_run_whose_folder_vanishes_is_named_and_nothing_is_written_in_its_place(
    after, run
):
    with pytest.raises(RunError, match="was removed while it ran") as caught:
        run(lambda: shutil.rmtree(run.folder), after)
    assert str(run.folder) in caught.value.where
    assert not run.folder.exists()


def test_a_run_whose_model_and_rows_vanish_is_none_the_worse_but_needs_them_to_go_on(
    run, tmp_path, tiny_folder, tiny_data
):
    def vanish():
        shutil.rmtree(tmp_path / "model")
        shutil.rmtree(tmp_path / "data")

    run(vanish)
    more = {"training__steps": 7, "training__checkpoint_every": 2}
    given = short_run(tiny_folder, tiny_data, objective__name="sft", **more)
    train.train(
        train.prepare(given, tmp_path / "whole", Silent()), tmp_path / "whole", Silent()
    )
    assert outcome(run.folder) == outcome(tmp_path / "whole")


def test_in_a_comparison_the_same_command_goes_on(
    tmp_path, tiny_folder, tiny_data, monkeypatch
):
    real, calls = Stepper.step, []

    def step(self, *given):
        calls.append(1)
        return (
            _raise(MemoryError("std::bad_alloc"))
            if len(calls) == 6
            else real(self, *given)
        )

    settings = short_run(tiny_folder, tiny_data)
    request = Request(arms=("sft", "dft"), out=tmp_path / "out", seeds=1)
    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(MachineError, match=r"1 of 4 steps.*give the same command"):
        compare.compare(settings, request, Silent())
    assert RunDir(tmp_path / "out/runs/sft-seed0").adapter.is_dir()
    assert len(compare.compare(settings, request, Silent())["arms"]) == 3


def test_what_befalls_any_command_is_told_from_a_bug():
    told = mishaps.of_machine(MemoryError())
    assert told.message == "Memory ran out (MemoryError)."
    full = OSError(errno.ENOSPC, "No space left on device", "/a/b")
    assert mishaps.of_machine(full).where == "/a/b"
    for bug in (OSError(errno.ENOENT, "gone"), RuntimeError("?"), KeyError("x")):
        assert mishaps.of_machine(bug) is None


class DeathError(BaseException):
    """Stands for a kill: nothing is said and nothing tidied up."""


def test_a_run_that_goes_on_after_a_death_says_what_its_steps_held(run, monkeypatch):
    with pytest.raises(DeathError):
        run(lambda: _raise(DeathError()))
    said = "it was killed, or memory ran out. "
    listener = Listening()
    train.prepare_again(config.resolve([]), run.folder, listener)
    assert any(f"{said}Its steps held 0.0 GiB at most" in n for n in listener.notes)
    tight = sizing.Where("this machine", 1000, 1000, stock=False)
    monkeypatch.setattr(sizing, "here", lambda: tight)
    train.prepare_again(config.resolve([]), run.folder, listener)
    assert any(f"{said}By the plan it holds" in note for note in listener.notes)
    assert any("No setting makes it fit" in note for note in listener.notes)


def test_a_run_that_was_stopped_did_not_die(run):
    with pytest.raises(Interrupted):
        run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    listener = Listening()
    train.prepare_again(config.resolve([]), run.folder, listener)
    assert not any("killed" in note for note in listener.notes)
