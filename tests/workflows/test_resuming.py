import json
import shutil
from contextlib import contextmanager

import pytest

from mlx_rsft import config, lanes, rundir
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import ConfigError, RsftError, RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.settings import OptimizerSettings
from mlx_rsft.training import optimizer
from mlx_rsft.workflows import sizing, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import outcome, short_run

NOTHING_GIVEN = config.resolve([])
KINDS = {
    "plain": {},
    "dropout and DoRA": {"adapter__method": "dora", "adapter__dropout": 0.3},
    "a lagged model": {"objective__name": "psft:every=4"},
    "a remembered base model": {"objective__name": "prift"},
    "muon and LoRA+": {"optimizer__name": "muon", "optimizer__lora_plus": 4.0},
}


class CrashError(Exception):
    """Stands for whatever ends a process between two steps."""


class Crashing(Silent):
    """Lets a run crash as soon as so many steps are done."""

    def __init__(self, step):
        self._left = step

    @contextmanager
    def task(self, title, total):
        def advance(done, text=""):
            if title.startswith("train"):
                self._left -= done
                if self._left <= 0:
                    raise CrashError

        yield advance


def _settings(model, data, **changes):
    more = {"training__steps": 7, "training__checkpoint_every": 2}
    return short_run(model, data, **{"objective__name": "sft", **more, **changes})


def _train(settings, folder, reporter=None):
    reporter = reporter or Silent()
    return train.train(train.prepare(settings, folder, reporter), folder, reporter)


def _resume(folder, settings=NOTHING_GIVEN, reporter=None, extend_to=0):
    reporter = reporter or Silent()
    job = train.prepare_again(settings, folder, reporter, extend_to)
    return train.train(job, folder, reporter)


def _cut(settings, folder, step):
    with pytest.raises(CrashError):
        _train(settings, folder, Crashing(step))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_and_resumed_is_the_uncut_one_to_the_byte(
    kind, tmp_path, tiny_folder, tiny_data
):
    settings = _settings(tiny_folder, tiny_data, **KINDS[kind])
    _train(settings, tmp_path / "whole")
    cut = tmp_path / "cut"
    _cut(settings, cut, 1)
    with pytest.raises(CrashError):
        _resume(cut, reporter=Crashing(4))
    with pytest.raises(CrashError):
        _resume(cut, reporter=Crashing(7))
    result = _resume(cut)
    assert outcome(cut) == outcome(tmp_path / "whole")
    assert result["steps"] == 7
    assert json.loads((cut / "manifest.json").read_text())["resumed"] == [0, 2, 6]


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_folder, tiny_data):
    """A run that crashed at step 5, with its model and data; not to be changed."""
    place = tmp_path_factory.mktemp("begun")
    shutil.copytree(tiny_folder, place / "model")
    shutil.copytree(tiny_data, place / "data")
    _cut(_settings(place / "model", place / "data"), place / "run", 5)
    return place


@pytest.fixture
def place(begun, tmp_path):
    """A copy of it, to be changed; the model and data are where they were."""
    shutil.copytree(begun / "run", tmp_path / "run")
    return tmp_path


def _moved(begun, tmp_path):
    for name in ("model", "data"):
        shutil.copytree(begun / name, tmp_path / name)
    where = {"model.source": str(tmp_path / "model")}
    return where | {"data.source": str(tmp_path / "data")}


def _given(**values):
    flat = {name.replace("__", "."): value for name, value in values.items()}
    return config.resolve([Layer(FLAG, flat)])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimizer__learning_rate": 0.5}, "learning_rate was 0.02 and is now 0.5"),
        ({"training__steps": 9}, "training.steps was 7 and is now 9.*--extend-to"),
        ({"training__trunk_cache": "off"}, "trunk_cache was 'auto' and is now 'off'"),
        ({"objective__name": "dft:floor=0.1"}, "name was 'sft' and is now 'dft'"),
        ({"objective__name": "auto"}, "name was 'sft' and is now 'auto'"),
        ({"seed": 3}, "seed was 0 and is now 3"),
    ],
)
def test_another_setting_is_refused_with_both_values(changes, named, place):
    before = sorted(place.rglob("*"))
    with pytest.raises(RunError, match=named):
        _resume(place / "run", _given(**changes))
    assert sorted(place.rglob("*")) == before


def test_an_edited_configuration_is_refused(place):
    file = place / "run" / "config.toml"
    file.write_text(file.read_text().replace("rank = 2", "rank = 3"))
    with pytest.raises(RunError, match=r"adapter\.rank was 2 and is now 3"):
        _resume(place / "run")


def test_other_rows_and_other_weights_are_refused_by_file(begun, place):
    where = _moved(begun, place)
    with (place / "data" / "train.jsonl").open("a") as file:
        file.write('{"prompt": "one", "completion": "more"}\n')
    given = {name.replace(".", "__"): value for name, value in where.items()}
    with pytest.raises(RunError, match=r"train\.jsonl of split train was \w{12} and"):
        _resume(place / "run", _given(**given))
    shutil.copy(begun / "data" / "train.jsonl", place / "data" / "train.jsonl")
    weights = place / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(RunError, match=r"model\.safetensors was \w{12} and is now"):
        _resume(place / "run", _given(**given))


def test_another_number_of_cores_is_refused_because_it_sums_in_another_order(
    begun, place, monkeypatch
):
    where = _moved(begun, place)
    given = {name.replace(".", "__"): value for name, value in where.items()}
    monkeypatch.setattr(lanes, "count", lambda: 7)
    with pytest.raises(RunError, match=r"cores was \d+ and is now 7"):
        _resume(place / "run", _given(**given))


def test_model_and_data_may_have_moved(begun, place):
    where = _moved(begun, place)
    given = {name.replace(".", "__"): value for name, value in where.items()}
    assert _resume(place / "run", _given(**given))["steps"] == 7


def test_a_finished_run_and_a_foreign_folder_are_left_alone(place, begun):
    _resume(place / "run")
    before = outcome(place / "run")
    with pytest.raises(RunError, match="finished"):
        _resume(place / "run")
    settings = _settings(begun / "model", begun / "data")
    with pytest.raises(RunError, match="not empty"):
        train.prepare(settings, place / "run", Silent())
    assert outcome(place / "run") == before
    (place / "other").mkdir()
    (place / "other" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="no run"):
        _resume(place / "other")
    assert [path.name for path in (place / "other").iterdir()] == ["letter.txt"]


def test_a_record_that_lost_steps_is_refused(place):
    file = place / "run" / "steps.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(RunError, match=r"steps\.jsonl is altered"):
        _resume(place / "run")


def test_a_run_cut_off_before_its_first_checkpoint_starts_over(place, begun):
    shutil.rmtree(place / "run" / "checkpoints")
    _resume(place / "run")
    _train(_settings(begun / "model", begun / "data"), place / "whole")
    assert outcome(place / "run") == outcome(place / "whole")


def test_a_run_killed_between_its_manifest_and_its_settings_starts_over(place):
    run = RunDir(place / "run")
    run.config.replace(run.pending)
    assert _resume(place / "run")["steps"] == 7


def test_a_run_that_another_process_has_is_left_alone(place):
    before = (place / "run" / "steps.jsonl").read_text()
    with (
        rundir.held(place / "run"),
        pytest.raises(RunError, match="Another process trains"),
    ):
        _resume(place / "run")
    assert (place / "run" / "steps.jsonl").read_text() == before


def test_a_run_that_went_on_while_it_was_loaded_is_left_alone(place):
    job = train.prepare_again(NOTHING_GIVEN, place / "run", Silent())
    _resume(place / "run")
    before = outcome(place / "run")
    with pytest.raises(RunError, match="gone on meanwhile"):
        train.train(job, place / "run", Silent())
    assert outcome(place / "run") == before


def test_a_finished_run_is_made_longer_only_when_told_to_and_can_be_cut_again(place):
    _resume(place / "run")
    shutil.copytree(place / "run", place / "cut")
    done = outcome(place / "run")[1]
    with pytest.raises(ConfigError, match="has 7 steps already"):
        _resume(place / "run", extend_to=7)
    assert _resume(place / "run", extend_to=12)["steps"] == 12
    longer = outcome(place / "run")
    assert longer[1][:7] == done
    plan = OptimizerSettings(learning_rate=0.02)
    rates = [optimizer.learning_rate(step, 12, plan) for step in range(7, 12)]
    assert [step["learning_rate"] for step in longer[1][7:]] == rates
    with pytest.raises(CrashError):
        _resume(place / "cut", reporter=Crashing(7 + 3), extend_to=12)
    assert _resume(place / "cut")["steps"] == 12
    assert outcome(place / "cut") == longer
    card = json.loads((place / "cut" / "manifest.json").read_text())
    assert card["extended"] == [{"step": 7, "steps": 12}]


def test_a_run_goes_on_with_what_auto_has_chosen_on_any_machine(
    tmp_path, tiny_folder, tiny_data, monkeypatch
):
    auto = {"training__grad_checkpoint": "auto", "adapter__layers": "last:2"}
    settings = _settings(tiny_folder, tiny_data, **auto)
    _train(settings, tmp_path / "whole")
    _cut(settings, tmp_path / "cut", 5)
    tight = sizing.Where("a small machine", 1, 1, stock=False)
    monkeypatch.setattr(sizing, "here", lambda: tight)
    assert _resume(tmp_path / "cut", settings)["steps"] == 7
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert 'grad_checkpoint = "0"  # auto' in (tmp_path / "cut/config.toml").read_text()


@pytest.mark.parametrize("name", ["manifest.json", "config.toml"])
def test_a_damaged_manifest_and_damaged_settings_are_refused_by_name(name, place):
    file = place / "run" / name
    whole = file.read_bytes()
    for at in range(0, len(whole) - 1, len(whole) // 25):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        for damaged in (bytes(flipped), whole[:at]):
            file.write_bytes(damaged)
            with pytest.raises(RsftError, match=name.replace(".", r"\.")):
                _resume(place / "run")


def test_a_checkpoint_of_another_run_is_refused(place, begun):
    where = begun / "model", begun / "data"
    _cut(_settings(*where, seed=1), place / "other", 5)
    shutil.rmtree(place / "run" / "checkpoints")
    shutil.copytree(place / "other" / "checkpoints", place / "run" / "checkpoints")
    with pytest.raises(RunError, match="of another run"):
        _resume(place / "run")
