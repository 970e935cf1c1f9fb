import json
import random
import shutil

import pytest

from mlx_rsft import config, ledger
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import audit, sealing, story, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import short_run, short_settings

ALTERATIONS = 1000


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_folder, tiny_data):
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("done") / "run"
    settings = short_run(tiny_folder, tiny_data, objective__name="dft:floor=0.1")
    train.train(train.prepare(settings, folder, Silent()), folder, Silent())
    return folder


@pytest.fixture
def run(done, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(done, tmp_path / "run")


def _named(run, **more):
    return {(one.file, one.what) for one in audit.verify(run, **more).findings}


def test_a_run_is_as_it_was_written(run):
    found = audit.verify(run)
    assert not found.findings
    assert not found.open
    assert found.state == "ended after step 4"
    assert found.files == len(ledger.places(run)) - 1


def test_every_one_of_a_thousand_altered_bytes_is_found_and_its_file_named(run):
    chance = random.Random(0)
    places = ledger.places(run)
    assert len(places) > 10
    for _ in range(ALTERATIONS):
        place = chance.choice(places)
        held = (run / place).read_bytes()
        at = chance.randrange(len(held))
        other = held[at] ^ chance.randrange(1, 256)
        (run / place).write_bytes(held[:at] + bytes([other]) + held[at + 1 :])
        assert (place, "altered") in _named(run), (place, at, other)
        if place != ledger.NAME:
            assert {file for file, _ in _named(run)} == {place}
        (run / place).write_bytes(held)
    assert not audit.verify(run).findings


@pytest.mark.parametrize("place", ["config.toml", "adapter/adapters.safetensors"])
def test_a_file_that_is_gone_or_a_link_is_named(place, run, tmp_path):
    (run / place).rename(tmp_path / "elsewhere")
    assert _named(run) == {(place, "missing")}
    (run / place).symlink_to(tmp_path / "elsewhere")
    assert _named(run) == {(place, "altered")}


def test_a_file_that_was_put_there_is_named_unless_the_log_is_told(run):
    (run / "scores").mkdir()
    extra = run / "scores" / "test.json"
    extra.write_text("{}")
    assert _named(run) == {("scores/test.json", "extra")}
    sealing.add(RunDir(run), "scores", [extra])
    sealing.add(RunDir(run), "scores", [extra])
    assert not audit.verify(run).findings
    assert len(ledger.read(run).events[-1]["files"]) == 1
    extra.write_text("{ }")
    assert _named(run) == {("scores/test.json", "altered")}


def test_lines_cut_off_the_log_are_noticed(run):
    log = run / ledger.NAME
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]))
    assert (ledger.NAME, "altered") in _named(run)
    log.write_bytes(b"".join(lines) + b'{"n": ')
    assert _named(run) == {(ledger.NAME, "altered")}
    log.unlink()
    assert (ledger.NAME, "missing") in _named(run)


def test_a_folder_written_anew_as_a_whole_does_not_hold_the_seal(run, done):
    seal = audit.verify(run).seal
    assert not _named(run, seal=seal)
    (run / ledger.NAME).unlink()
    card = json.loads((run / "manifest.json").read_text()) | {"seed": 7}
    sealing.write_card(RunDir(run), card, sealing.ENDED, steps=4)
    assert not audit.verify(run).findings
    assert _named(run, seal=seal) == {(ledger.NAME, "altered")}


def test_there_has_to_be_a_run(tmp_path):
    with pytest.raises(RunError, match="no run"):
        audit.verify(tmp_path)
    with pytest.raises(RunError, match="no manifest"):
        story.read(tmp_path)


def test_the_story_says_what_was_trained_on_what(done, tiny_data):
    told = "\n".join(story.told(story.read(done)))
    assert "dft, floor 0.1" in told
    assert "train, 20 rows: train.jsonl" in told
    assert "20 examples as salted hashes" in told
    assert told.endswith(ledger.read(done).head)


def _from(adapter, model, data):
    given = short_settings(model, data, objective__name="sft", training__steps=1)
    own = {name: v for name, v in given.items() if not name.startswith("adapter.")}
    return config.resolve([Layer(FLAG, own | {"adapter.init": str(adapter)})])


def test_a_run_that_goes_on_from_another_knows_its_ancestors(
    done, tmp_path, tiny_folder, tiny_data
):
    first = shutil.copytree(done, tmp_path / "first")
    for name, before in (("second", first), ("third", tmp_path / "second")):
        settings = _from(before / "adapter", tiny_folder, tiny_data)
        folder = tmp_path / name
        train.train(train.prepare(settings, folder, Silent()), folder, Silent())
    oldest, parent = audit.lineage(tmp_path / "third")
    assert oldest["source"] == str(first)
    assert oldest["objective"]["name"] == "dft"
    assert parent["seal"] == ledger.read(tmp_path / "second").head
    assert not audit.verify(tmp_path / "third").findings
    weights = first / "adapter" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    assert _named(tmp_path / "third") == {(str(weights), "altered")}
