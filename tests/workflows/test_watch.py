import json
import plistlib
import re
from pathlib import Path

import pytest
import yaml

from mlx_rsft import config
from mlx_rsft.cli.main import COMMANDS
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import ConfigError, ModelError, RsftError, RunError
from mlx_rsft.workflows import suite, train, watch
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.watch import Request

from .conftest import Listening, short_run

ROOT = Path(__file__).parents[2]
ANSWERS = {"red": "stop", "green": "go", "amber": "wait", "blue": "call"}
ROWS = 16


def _rows(folder, answers, name="train"):
    folder.mkdir(exist_ok=True)
    words = list(answers)
    lines = [
        json.dumps(
            {"prompt": f"{words[n % 4]} {n}", "completion": answers[words[n % 4]]}
        )
        for n in range(ROWS)
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _given(**values):
    flat = {name.replace("__", "."): value for name, value in values.items()}
    return config.resolve([Layer(FLAG, flat)])


def _trained(model, data, folder, seed):
    settings = short_run(
        model,
        data,
        seed=seed,
        objective__name="sft",
        adapter__layers="all",
        adapter__rank=8,
        training__steps=40,
        training__batch_size=8,
    )
    train.train(train.prepare(settings, folder, Silent()), folder, Silent())
    return folder / "adapter"


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_folder):
    """Adapters of six seeds, and one trained on wrong labels; a suite's data."""
    root = tmp_path_factory.mktemp("watch")
    right = _rows(root / "right", ANSWERS)
    shuffled = dict(zip(ANSWERS, [*list(ANSWERS.values())[1:], "stop"], strict=True))
    wrong = _rows(root / "wrong", shuffled)
    _rows(root / "asked", ANSWERS, "test")
    for seed in range(6):
        _trained(tiny_folder, right, root / f"seed{seed}", seed)
    _trained(tiny_folder, wrong, root / "mislabelled", 0)
    return root


@pytest.fixture
def place(world, tmp_path):
    settings = _given(data__source=str(world / "asked"))
    suite.freeze(settings, tmp_path / "watched", {}, {})
    return tmp_path / "watched"


def _score(place, model, adapter, reporter=None, **more):
    request = Request(adapter, **more)
    settings = _given(model__source=str(model))
    return watch.score(place, settings, request, reporter or Silent())


def test_a_retraining_passes_and_an_adapter_of_wrong_labels_does_not(
    place, world, tiny_folder
):
    first = _score(place, tiny_folder, world / "seed0" / "adapter")
    assert first["verdict"] == "reference"
    listening = Listening()
    second = _score(place, tiny_folder, world / "seed1" / "adapter", listening)
    assert second["verdict"] == "pass", second["checks"]
    assert any("how much seeds differ is not known" in note for note in listening.notes)
    bad = _score(place, tiny_folder, world / "mislabelled" / "adapter")
    assert bad["verdict"] == "regression"
    assert {one["metric"] for one in bad["checks"]} == {"exact_match", "nll"}
    history = watch.read_history(place)
    assert [entry["verdict"] for entry in history] == [
        "reference",
        "pass",
        "regression",
    ]
    page = (place / "drift.html").read_text()
    assert page.count("<svg") == 2 + 1
    assert "mislabelled" in page
    assert "✕ regression" in page


def test_harmless_retrainings_do_not_alarm(place, world, tiny_folder):
    """The short form; scripts/bench_trust.py has the long one."""
    for seed in range(3):
        adapter = world / f"seed{seed}" / "adapter"
        _score(place, tiny_folder, adapter, reference="joins")
    for seed in range(3, 6):
        found = _score(place, tiny_folder, world / f"seed{seed}" / "adapter")
        assert found["verdict"] == "pass", found["checks"]
    bad = _score(place, tiny_folder, world / "mislabelled" / "adapter")
    assert bad["verdict"] == "regression"


def test_a_reference_that_is_scored_twice_counts_once(place, world, tiny_folder):
    for _ in range(2):
        _score(place, tiny_folder, world / "seed0" / "adapter", reference="joins")
    history = watch.read_history(place)
    assert len(history) == 2
    assert watch.references(history) == history[1:]


def test_references_join_and_restart(place, world, tiny_folder):
    for seed in range(3):  # of two, how much seeds differ is hardly known
        adapter = world / f"seed{seed}" / "adapter"
        _score(place, tiny_folder, adapter, reference="joins")
    assert len(watch.references(watch.read_history(place))) == 3
    bad = world / "mislabelled" / "adapter"
    assert _score(place, tiny_folder, bad)["verdict"] == "regression"
    assert (
        _score(place, tiny_folder, bad, reference="restarts")["verdict"] == "reference"
    )
    held = watch.references(watch.read_history(place))
    assert [entry["label"] for entry in held] == ["mislabelled"]


def test_what_is_in_the_history_is_not_measured_again_unless_asked(
    place, world, tiny_folder
):
    adapter = world / "seed0" / "adapter"
    _score(place, tiny_folder, adapter)
    listening = Listening()
    again = _score(place, tiny_folder, adapter, listening)
    assert again["verdict"] == "reference"
    assert not any(title.startswith("ask") for title in listening.done)
    assert len(watch.read_history(place)) == 1
    found = _score(place, tiny_folder, adapter, again=True)
    assert found["verdict"] == "pass"
    assert all(one["gain"] == 0 for one in found["checks"])


def test_a_limit_alarms_where_the_whole_interval_misses_it(
    world, tmp_path, tiny_folder
):
    settings = _given(data__source=str(world / "asked"))
    suite.freeze(settings, tmp_path / "w", {}, {"nll": 1e-6})
    found = _score(tmp_path / "w", tiny_folder, world / "seed0" / "adapter")
    assert found["verdict"] == "reference"
    found = _score(tmp_path / "w", tiny_folder, world / "seed1" / "adapter")
    assert found["verdict"] == "regression"
    assert found["beyond"] == ["test nll is beyond its limit of 1e-06"]


def test_a_suite_that_was_altered_is_refused_and_one_that_is_there_is_kept(
    place, world, tiny_folder
):
    file = place / "suite.json"
    settings = _given(data__source=str(world / "asked"))
    with pytest.raises(RunError, match="already"):
        suite.freeze(settings, place, {}, {})
    file.write_text(file.read_text().replace("red 0", "red 1", 1))
    with pytest.raises(RunError, match="not as it was frozen"):
        _score(place, tiny_folder, None)
    file.unlink()
    with pytest.raises(RunError, match="no suite"):
        _score(place, tiny_folder, None)


def test_later_changes_to_the_data_change_nothing(world, tmp_path):
    _rows(tmp_path / "asked", ANSWERS, "test")
    settings = _given(data__source=str(tmp_path / "asked"))
    frozen = suite.freeze(settings, tmp_path / "w", {}, {})
    (tmp_path / "asked" / "test.jsonl").unlink()
    assert suite.read(tmp_path / "w") == frozen
    assert len(frozen.rows["test"]) == ROWS


@pytest.mark.parametrize(
    ("tolerance", "limits", "said"),
    [({"nl": 0.1}, {}, "'nl' is not watched"), ({}, {"json": 1}, "'json' is not")],
)
def test_tolerances_are_of_watched_metrics(tolerance, limits, said, world, tmp_path):
    settings = _given(data__source=str(world / "asked"))
    with pytest.raises(ConfigError, match=said):
        suite.freeze(settings, tmp_path / "w", tolerance, limits)
    assert not (tmp_path / "w").exists()


def test_an_adapter_that_is_not_there_is_refused(place, tiny_folder, tmp_path):
    with pytest.raises(ModelError):
        _score(place, tiny_folder, tmp_path / "none")
    (place / "history.jsonl").write_text("{")
    with pytest.raises(RsftError, match="history"):
        _score(place, tiny_folder, None)


def test_the_examples_for_cron_launchd_and_ci_are_well_formed_and_name_the_command():
    cron = (ROOT / "configs" / "watch.crontab").read_text()
    lines = [line for line in cron.splitlines() if re.match(r"[\d*]", line)]
    assert [len(line.split(maxsplit=5)) for line in lines] == [6]
    assert "%" not in lines[0]  # cron takes it for the end of the line
    agent = plistlib.loads((ROOT / "configs" / "watch.plist").read_bytes())
    job = yaml.safe_load((ROOT / "configs" / "watch.yml").read_text())
    steps = [step.get("run", "") for step in job["jobs"]["watch"]["steps"]]
    for text in (lines[0], agent["ProgramArguments"][-1], *filter(_watches, steps)):
        assert re.search(r"mlx-rsft watch score \w+ --model \w+ --adapter [\w/]+", text)
    assert any(map(_watches, steps))
    assert "watch" in COMMANDS


def _watches(text):
    return "watch" in text
