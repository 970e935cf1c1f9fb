"""Checkpoints that are kept for good, beside the newest and the best."""

import json
from contextlib import contextmanager

import mlx.core as mx
import pytest

from mlx_rsft import config
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import adapters
from mlx_rsft.rundir import RunDir
from mlx_rsft.training import checkpoint
from mlx_rsft.workflows import audit, train
from mlx_rsft.workflows.evaluate import evaluate
from mlx_rsft.workflows.reporter import Silent

from .conftest import outcome, short_run


class StopError(Exception):
    """Stands for whatever ends a process between two steps."""


class Stopping(Silent):
    def __init__(self, step):
        self._left = step

    @contextmanager
    def task(self, title, total):
        def advance(done, text=""):
            if title.startswith("train"):
                self._left -= done
                if self._left <= 0:
                    raise StopError

        yield advance


@pytest.fixture
def settings(tiny_folder, tiny_data):
    def made(**changes):
        more = {
            "training__steps": 9,
            "training__checkpoint_every": 2,
            "training__keep": 1,
            "training__keep_at": (2, 5),
        }
        return short_run(
            tiny_folder, tiny_data, objective__name="sft", **{**more, **changes}
        )

    return made


def _train(given, folder, reporter=None):
    reporter = reporter or Silent()
    train.train(train.prepare(given, folder, reporter), folder, reporter)
    return RunDir(folder)


def _resume(folder, reporter=None, **given):
    asked = {name.replace("__", "."): value for name, value in given.items()}
    resolved = config.resolve([Layer(FLAG, asked)])
    job = train.prepare_again(resolved, folder, reporter or Silent())
    train.train(job, folder, reporter or Silent())


def _kept(run):
    """Steps of the checkpoints there are; what those kept for good have trained."""
    steps, held = [], {}
    for place in checkpoint.found(run.checkpoints):
        steps.append(checkpoint.step_of(place))
        weights = place / checkpoint.ADAPTER / "adapters.safetensors"
        if weights.exists():
            held[steps[-1]] = weights.read_bytes()
    return steps, held


def test_named_steps_are_never_removed_and_hold_what_a_run_of_that_length_would(
    settings, tmp_path, tiny_data
):
    run = _train(settings(), tmp_path / "run")
    steps, held = _kept(run)
    assert steps == [2, 5, 8, 9]
    assert list(held) == [2, 5]
    for step, found in held.items():
        place = checkpoint.path(run.checkpoints, step)
        state = mx.load(str(place / "state.safetensors"))
        adapter = mx.load(str(place / "adapter/adapters.safetensors"))
        for name, value in adapter.items():
            assert mx.array_equal(value, state[f"trained/{name}"]).item()
        assert found != (run.adapter / "adapters.safetensors").read_bytes()
    assert audit.verify(run.path).findings == ()
    asked = short_run(*[settings().config.model.source, tiny_data])
    seen = [
        evaluate(asked, folder, Silent())["splits"]["test"]["metrics"]["nll"]["value"]
        for folder in (checkpoint.path(run.checkpoints, 5) / "adapter", run.adapter)
    ]
    assert seen[0] != seen[1]


def test_a_damaged_kept_adapter_is_found_by_the_audit_and_refused(settings, tmp_path):
    run = _train(settings(), tmp_path / "run")
    weights = checkpoint.path(run.checkpoints, 2) / "adapter/adapters.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (found,) = audit.verify(run.path).findings
    assert found.file == weights.relative_to(run.path).as_posix()


def test_a_kept_adapter_is_sealed_at_its_checkpoint_not_only_at_the_end(
    settings, tmp_path
):
    with pytest.raises(StopError):
        _train(settings(), tmp_path / "cut", Stopping(4))
    run = RunDir(tmp_path / "cut")
    config_file = checkpoint.path(run.checkpoints, 2) / "adapter/adapter_config.json"
    config_file.write_text(config_file.read_text() + " ")
    (found,) = audit.verify(run.path).findings
    assert found.file == config_file.relative_to(run.path).as_posix()


@pytest.mark.parametrize("at", [2, 3, 5, 6, 9])
def test_a_cut_run_keeps_the_same_as_an_uncut_one(at, settings, tmp_path):
    whole = _train(settings(), tmp_path / "whole")
    with pytest.raises(StopError):
        _train(settings(), tmp_path / "cut", Stopping(at))
    assert not audit.verify(tmp_path / "cut").findings
    _resume(tmp_path / "cut")
    assert _kept(RunDir(tmp_path / "cut")) == _kept(whole)
    assert outcome(tmp_path / "cut") == outcome(whole.path)
    assert audit.verify(tmp_path / "cut").findings == ()


def test_a_kill_between_a_checkpoint_and_its_adapter_is_made_good(
    settings, tmp_path, monkeypatch
):
    whole = _train(settings(), tmp_path / "whole")

    def killed(*_):
        raise StopError

    monkeypatch.setattr(adapters, "save", killed)
    with pytest.raises(StopError):
        _train(settings(), tmp_path / "cut")
    monkeypatch.undo()
    cut = RunDir(tmp_path / "cut")
    assert _kept(cut) == ([0, 2], {})
    _resume(cut.path)
    assert _kept(cut) == _kept(whole)


def test_what_is_kept_for_good_stays_when_a_resumed_run_names_other_steps(
    settings, tmp_path
):
    with pytest.raises(StopError):
        _train(settings(), tmp_path / "run", Stopping(7))
    _resume(tmp_path / "run", training__keep_at=(7,))
    steps, held = _kept(RunDir(tmp_path / "run"))
    assert steps == [2, 5, 7, 8, 9]
    assert list(held) == [2, 5, 7]


def test_a_step_that_will_not_be_there_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="no step 12 to keep: the run has 9"):
        _train(settings(training__keep_at=(5, 12)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "held"),
    [("100,200", (100, 200)), ([100, 200], (100, 200)), (100, (100,)), ((), ())],
)
def test_steps_are_written_as_numbers_or_between_commas(given, held):
    resolved = config.resolve([Layer(FLAG, {"training.keep_at": given})])
    assert resolved.config.training.keep_at == held
    assert json.dumps(list(held)) in config.as_toml(resolved)


@pytest.mark.parametrize("given", ["a", "1,,2", [1.5], [True], 0, "-3", None])
def test_what_is_no_step_is_refused(given):
    with pytest.raises(ConfigError, match=r"keep_at.*(whole numbers|at least 1)"):
        config.resolve([Layer(FLAG, {"training.keep_at": given})])
