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
from mlx_rsft.workflows import train
from mlx_rsft.workflows.reporter import Silent

from .conftest import outcome, short_run

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
