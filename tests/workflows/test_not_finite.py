"""Weights turned to NaN in the middle of a run, and what the run makes of it."""

import json
import math
from contextlib import contextmanager

import mlx.core as mx
import pytest

from mlx_rsft import config
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.training.loop import EASED
from mlx_rsft.training.step import Stepper
from mlx_rsft.workflows import compare, search, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening, outcome, short_run

NAME = "model.layers.2.self_attn.q_proj.lora_a"
STEPS = 12


class StopError(Exception):
    """Stands for whatever ends a process between two steps."""


class Poisoning(Silent):
    """Makes weights NaN right after some step, so many times; heals them a step later.

    Args:
        model: Whose weights.
        after: The step.
        times: How often it happens when a run comes by again.
        heals: Whether the weights are put back one step later.
        stops: Raise after this step, if it is reached after the last time.
    """

    def __init__(self, after, times=1, *, heals=False, stops=0):
        self.model, self._after, self._times = None, after, times
        self._heals, self._stops, self._before = heals, stops, None

    @contextmanager
    def task(self, title, total):
        step = 0

        def advance(done, text=""):
            nonlocal step
            step += done
            if title.startswith("train") and text:
                self._stepped(step)

        yield advance

    def _stepped(self, step):
        if self._before is not None and self._heals:
            self.model.load_weights([(NAME, self._before)], strict=False)
            self._before = None
        if step == self._after and self._times:
            self._times -= 1
            self._before = self.model.model.layers[2].self_attn.q_proj.lora_a
            poison = mx.full(self._before.shape, math.nan)
            self.model.load_weights([(NAME, poison)], strict=False)
        elif step == self._stops and not self._times:
            raise StopError


@pytest.fixture
def trained(tmp_path, tiny_folder, tiny_data):
    """Trains with a reporter that has got hold of the model; gives the run's folder."""

    def go(reporter, name="run", **changes):
        more = {"training__steps": STEPS, "training__checkpoint_every": 2, **changes}
        settings = short_run(tiny_folder, tiny_data, objective__name="sft", **more)
        job = train.prepare(settings, tmp_path / name, reporter)
        reporter.model = job.loaded.model
        train.train(job, tmp_path / name, reporter)
        return RunDir(tmp_path / name)

    go.path = tmp_path
    return go


def _adapter(run):
    return mx.load(str(run.adapter / "adapters.safetensors"))


def _is_finite(run):
    return all(mx.isfinite(value).all().item() for value in _adapter(run).values())


@pytest.mark.parametrize(("after", "back"), [(5, 4), (4, 2), (STEPS, 10)])
def test_a_run_that_stays_non_finite_goes_back_once_with_lower_rates(
    after, back, trained
):
    run = trained(Poisoning(after))
    adapter, steps, _ = outcome(run.path)
    _, plain, _ = outcome(trained(Poisoning(0), "plain").path)
    assert adapter
    assert [step["step"] for step in steps] == [*range(1, STEPS + 1)]
    rates = [step["learning_rate"] for step in steps]
    whole = [step["learning_rate"] for step in plain]
    assert rates == whole[:back] + [rate * EASED for rate in whole[back:]]
    notes = {step["step"]: step["note"] for step in steps if "note" in step}
    assert list(notes) == [back + 1]
    assert f"to step {back}, because updates were not finite" in notes[back + 1]
    assert not any(step.get("skipped") for step in steps)
    assert _is_finite(run)


def test_a_run_that_goes_back_in_vain_stops_and_keeps_its_last_good_adapter(trained):
    with pytest.raises(RunError, match=r"not finite again.*that of step 4.*a tenth"):
        trained(Poisoning(5, times=9))
    run = RunDir(trained.path / "run")
    assert _is_finite(run)
    result = json.loads(run.manifest.read_text())["result"]
    assert result["diverged"]
    assert result["adapter_of_step"] == 4
    skipped = [step["step"] for step in outcome(run.path)[1] if step.get("skipped")]
    assert skipped == [6, 7, 8, 9, 10]


def test_one_step_that_is_not_finite_is_left_out_and_that_is_all(trained):
    run = trained(Poisoning(5, heals=True))
    steps = outcome(run.path)[1]
    assert [step["step"] for step in steps if step.get("skipped")] == [6]
    assert not any("note" in step for step in steps)
    assert _is_finite(run)


def test_a_run_cut_off_after_it_went_back_goes_on_with_the_lower_rates(trained):
    whole = outcome(trained(Poisoning(5), "whole").path)
    with pytest.raises(StopError):
        trained(Poisoning(5, stops=11), "cut")
    path = trained.path / "cut"
    job = train.prepare_again(config.resolve([]), path, Silent())
    train.train(job, path, Silent())
    assert outcome(path) == whole


def test_a_state_that_is_not_finite_is_never_saved(trained):
    with pytest.raises(StopError):
        trained(Poisoning(4, stops=5))
    saved = sorted((trained.path / "run" / "checkpoints").glob("*/state.safetensors"))
    assert [path.parent.name for path in saved] == ["step-000000", "step-000002"]
    for path in saved:
        assert all(mx.isfinite(v).all().item() for v in mx.load(str(path)).values())


@pytest.fixture
def poisoned_dft(monkeypatch):
    """Whenever an arm named dft makes its third step, its weights are NaN."""
    real, made = Stepper.step, []

    def step(self, *given):
        if str(self.objective).startswith("dft"):
            made.append(1)
            if len(made) >= 3:
                held = self.split.model.model.layers[2].self_attn.q_proj.lora_a
                poison = mx.full(held.shape, math.nan)
                self.split.model.load_weights([(NAME, poison)], strict=False)
        return real(self, *given)

    monkeypatch.setattr(Stepper, "step", step)


def test_an_arm_that_stays_non_finite_is_named_recorded_and_never_the_winner(
    tmp_path, tiny_folder, tiny_data, poisoned_dft
):
    asked = short_run(tiny_folder, tiny_data, training__steps=STEPS)
    out, listener = tmp_path / "out", Listening()
    request = compare.Request(arms=("sft", "dft"), out=out, seeds=1)
    record = compare.compare(asked, request, listener)
    arms = {arm["name"]: arm["diverged"] for arm in record["arms"]}
    assert arms == {"base": False, "sft": False, "dft": True}
    assert record["verdict"] == "no-go"
    assert "dft came to no end, its loss was not finite" in record["reason"]
    said = "dft-seed0: loss or gradient stayed non-finite; stopped after 7 of 12 steps"
    assert any(note.startswith(said) for note in listener.notes)
    run = RunDir(out / "runs" / "dft-seed0")
    assert json.loads(run.manifest.read_text())["result"]["diverged"]
    assert _is_finite(run)
    assert json.loads((out / "comparison.json").read_text()) == record
    assert compare.compare(asked, request, Listening())["reason"] == record["reason"]


def test_a_trial_that_stays_non_finite_is_dropped_by_name(
    tmp_path, tiny_folder, tiny_data, poisoned_dft
):
    asked = short_run(
        tiny_folder, tiny_data, training__steps=STEPS, evaluation__metrics=("nll",)
    )
    request = search.Request(tmp_path / "out", arms=("sft", "dft"), kl_budget=50.0)
    job = search.prepare(asked, request, Silent())
    record = search.search(job, Silent())
    (found,) = record["searches"]
    dropped = {trial["name"]: trial["dropped"] for trial in found["trials"]}
    lost = {why for name, why in dropped.items() if name.startswith("dft ")}
    assert lost == {"diverged"}
    assert found["chosen"].startswith("sft ")
