import json
import shutil

import pytest

from mlx_rsft import config, manifest, records
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import CheckFailed, RsftError, RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import rerun, sealing, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import short_run, short_settings


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_folder, tiny_data):
    """A finished run beside its model and data; not to be changed."""
    root = tmp_path_factory.mktemp("done")
    shutil.copytree(tiny_data, root / "data")
    more = {"objective__name": "dft:floor=0.1", "adapter__dropout": 0.2}
    settings = short_run(tiny_folder, root / "data", **more)
    train.train(train.prepare(settings, root / "run", Silent()), root / "run", Silent())
    return root


@pytest.fixture
def run(place, tmp_path):
    return shutil.copytree(place / "run", tmp_path / "run")


def _again(run, tmp_path, **moved):
    return rerun.rerun(run, tmp_path / "again", moved, Silent())


def _rewritten(run, **changes):
    card = json.loads((run / "manifest.json").read_text())
    sealing.write_card(RunDir(run), card | changes, sealing.ENDED, steps=4)


def test_a_replay_gives_the_same_adapter_bytes(run, tmp_path):
    found = _again(run, tmp_path)
    assert found.same_bytes
    assert found.repeats
    assert not found.differs


def test_data_may_have_moved_but_not_changed(run, place, tmp_path):
    moved = shutil.copytree(place / "data", tmp_path / "elsewhere")
    assert _again(run, tmp_path, **{"data.source": str(moved)}).same_bytes
    with (moved / "train.jsonl").open("a") as file:
        file.write('{"prompt": "one", "completion": "more"}\n')
    with pytest.raises(RunError, match=r"data train train\.jsonl was \w{12} and is"):
        rerun.rerun(run, tmp_path / "other", {"data.source": str(moved)}, Silent())
    assert not (tmp_path / "other").exists()


def test_a_run_that_began_from_an_adapter_is_repeated_from_the_same_one(
    run, place, tiny_folder, tmp_path
):
    begun = {"adapter.init": str(run / "adapter"), "training.steps": 2}
    given = short_settings(tiny_folder, place / "data", objective__name="sft")
    given = {k: v for k, v in given.items() if not k.startswith("adapter.")} | begun
    settings = config.resolve([Layer(FLAG, given)])
    second = tmp_path / "second"
    train.train(train.prepare(settings, second, Silent()), second, Silent())
    assert _again(second, tmp_path).same_bytes
    weights = run / "adapter" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    with pytest.raises(RsftError, match=r"adapters\.safetensors"):
        rerun.rerun(second, tmp_path / "other", {}, Silent())


def test_another_machine_has_to_reach_the_same_figures(run, tmp_path):
    """The run is made to look as if it came from elsewhere, with other bytes."""
    card = json.loads((run / "manifest.json").read_text())
    weights = run / "adapter" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    device = card["device"] | {"name": "another one"}
    _rewritten(run, device=device)
    found = _again(run, tmp_path)
    assert not found.same_bytes
    assert found.differs == (f"name was another one and is now {_name()}",)
    assert {figure.metric for figure in found.figures} >= {"nll", "exact_match"}
    assert found.repeats


def _name():
    return rerun.device().as_record()["name"]


def test_other_bytes_on_the_same_machine_are_no_repetition(run, tmp_path):
    weights = run / "adapter" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    _rewritten(run)
    found = _again(run, tmp_path)
    assert not found.repeats


def test_other_figures_on_another_machine_are_no_repetition(run, tmp_path):
    lines = list(records.read_lines(run / "evals.jsonl"))
    changed = [line | {"low": 90.0, "value": 91.0, "high": 92.0} for line in lines]
    (run / "evals.jsonl").write_text("".join(json.dumps(one) + "\n" for one in changed))
    weights = run / "adapter" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    _rewritten(run, code=manifest.text_sha256("other code"))
    assert not _again(run, tmp_path).repeats


def test_an_altered_run_and_an_unfinished_one_are_not_repeated(run, tmp_path):
    with (run / "config.toml").open("a") as file:
        file.write("\n")
    with pytest.raises(CheckFailed, match=r"config\.toml"):
        _again(run, tmp_path)
    _rewritten(run, finished=None)
    with pytest.raises(RunError, match="not finished"):
        _again(run, tmp_path)
    assert not (tmp_path / "again").exists()
