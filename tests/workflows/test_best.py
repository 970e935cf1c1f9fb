import json
from contextlib import contextmanager

import mlx.core as mx
import pytest

from mlx_rsft import config, records
from mlx_rsft.config import resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import best, train
from mlx_rsft.workflows.best import Aim, Standing
from mlx_rsft.workflows.reporter import Silent

from .conftest import outcome, short_run


def _aim(**changes):
    held = {"least_gain": 0.0, "patience": 0, "kl_budget": 0.0, "sign": -1.0}
    return Aim("valid", "nll", **{**held, **changes})


def _looks(*values, drift=()):
    lines = [
        {"step": 2 * n + 2, "split": "valid", "metric": "nll", "value": value}
        for n, value in enumerate(values)
    ]
    for n, value in enumerate(drift):
        line = {"step": 2 * n + 2, "split": "valid", "metric": "drift_kl"}
        lines.append({**line, "value": value})
    return sorted(lines, key=lambda line: line["step"])


def test_the_best_state_is_the_first_with_the_best_figure():
    assert best.standing(_looks(3, 1, 2, 1), _aim()).best == 4
    assert best.standing(_looks(3, 1, 2, 4), _aim(sign=1.0)).best == 8
    assert best.standing(_looks(3, 2.9, 2), _aim(least_gain=0.5)).best == 6
    assert best.standing(_looks(None, 3, None), _aim()).best == 4
    other = [{**look, "split": "valid_shifted"} for look in _looks(0.1)]
    assert best.standing([*_looks(3, 2), *other], _aim()).best == 4


def test_looks_without_a_better_one_end_a_run():
    assert not best.standing(_looks(3, 1, 2), _aim(patience=2)).stop
    found = best.standing(_looks(3, 1, 2, 1), _aim(patience=2))
    assert found == Standing(4, "valid.nll is best at step 4")


def test_a_state_that_moved_too_far_ends_a_run_and_is_not_the_best():
    looks = _looks(3, 2, 1, drift=(0.1, 0.2, 0.3))
    found = best.standing(looks, _aim(kl_budget=0.25))
    assert found == Standing(4, "drift_kl went over 0.25 at step 6")
    assert best.standing(looks, _aim(kl_budget=0.05)).best == 0
    assert not best.standing(looks, _aim(kl_budget=0.5)).stop


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"best": "valid.nll"}, "Without looks"),
        ({"best": "test.nll", "eval_every": 2}, "no validation split"),
        ({"best": "valid", "eval_every": 2}, "no validation split"),
        ({"best": "valid.nlll", "eval_every": 2}, "is not measured"),
        ({"patience": 2}, "patience is about"),
        ({"best": "valid.nll", "eval_every": 2, "kl_budget": 1}, "needs drift_kl"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(given, message):
    values = {f"training.{name}": value for name, value in given.items()}
    layer = config.Layer("flag", {**values, "evaluation.metrics": ["nll"]})
    with pytest.raises(ConfigError, match=message):
        best.aim(resolve([layer]).config)


class CrashError(Exception):
    """Stands for whatever ends a process between two steps."""


class Crashing(Silent):
    def __init__(self, step):
        self._step = step

    @contextmanager
    def task(self, title, total):
        reached = 0

        def advance(done, text=""):
            nonlocal reached
            reached += done
            if title.startswith("train") and reached == self._step:
                raise CrashError

        yield advance


@pytest.fixture
def settings(tiny_folder, tiny_data):
    def made(**changes):
        held = {
            "training__steps": 12,
            "training__checkpoint_every": 4,
            "training__keep": 1,
            "training__eval_every": 2,
            "training__best": "valid.nll",
            "evaluation__metrics": ["nll", "drift_kl"],
        }
        return short_run(
            tiny_folder, tiny_data, objective__name="sft", **{**held, **changes}
        )

    return made


def _adapter_is_that_of(run, step):
    state = mx.load(str(run.checkpoints / f"step-{step:06d}" / "state.safetensors"))
    for name, value in mx.load(str(run.adapter / "adapters.safetensors")).items():
        assert mx.array_equal(value, state[f"trained/{name}"]).item(), name


STOPS = {
    "patience": ({"training__least_gain": 99.0, "training__patience": 2}, 2, 6),
    "budget": ({"training__kl_budget": 1e-9}, 0, 2),
}


@pytest.mark.parametrize("kind", STOPS)
def test_a_run_that_is_ended_leaves_its_best_state_and_a_cut_one_the_same(
    kind, settings, tmp_path
):
    changes, kept, end = STOPS[kind]
    given, run = settings(**changes), RunDir(tmp_path / "whole")
    result = train.train(train.prepare(given, run.path, Silent()), run.path, Silent())
    assert result["steps"] == end
    assert result["adapter_of_step"] == kept
    assert result["stopped"]
    _adapter_is_that_of(run, kept)
    for cut in {1, end - 1, end}:
        path = tmp_path / f"cut{cut}"
        with pytest.raises(CrashError):
            train.train(train.prepare(given, path, Silent()), path, Crashing(cut))
        job = train.prepare_again(config.resolve([]), path, Silent())
        train.train(job, path, Silent())
        assert outcome(path) == outcome(run.path), cut


def test_the_best_of_all_looks_is_kept_where_nothing_ends_the_run(settings, tmp_path):
    run = RunDir(tmp_path / "run")
    job = train.prepare(settings(), run.path, Silent())
    train.train(job, run.path, Silent())
    looks = [e for e in records.read_lines(run.evals) if e["metric"] == "nll"]
    assert [look["step"] for look in looks] == [2, 4, 6, 8, 10, 12]
    step = min(looks, key=lambda look: look["value"])["step"]
    _adapter_is_that_of(run, step)
    result = json.loads(run.manifest.read_text())["result"]
    assert result.get("adapter_of_step", 12) == step
