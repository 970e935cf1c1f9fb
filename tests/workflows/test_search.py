import json
import os
import signal
import tomllib

import pytest

from mlx_rsft import config as configuration
from mlx_rsft import records
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import CheckFailed, ConfigError, DataError, Interrupted, RunError
from mlx_rsft.workflows import search, train
from mlx_rsft.workflows.evaluate import evaluate
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.search import Request

from .conftest import Listening, short_settings

ARMS = ("sft", "dft:floor=0.1", "power:alpha=0.5")
STEPS = 15


def _settings(model, data, **changes):
    own = {"training__steps": STEPS, "evaluation__metrics": ("nll",)}
    return short_settings(model, data, **{**own, **changes})


def _asked(model, data, **changes):
    return configuration.resolve([Layer(FLAG, _settings(model, data, **changes))])


def _search(asked, out, reporter=None, **changes):
    request = Request(out, **{"arms": ARMS, "kl_budget": 50.0, **changes})
    reporter = reporter or Silent()
    return search.search(search.prepare(asked, request, reporter), reporter)


def _write(path, rows, tag=None):
    more = {"tags": [tag]} if tag else {}
    lines = [
        json.dumps({"prompt": f"{path.stem} {n}", "completion": f"{n}", **more})
        for n in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two validation splits, and test splits that nobody could read."""
    folder = tmp_path_factory.mktemp("searched") / "data"
    folder.mkdir()
    for name, rows in (("train", 20), ("valid", 4), ("valid_far", 6)):
        _write(folder / f"{name}.jsonl", rows)
    for name in ("test", "test_shifted"):
        (folder / f"{name}.jsonl").mkdir()  # to open it is an error, even for root
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny_folder, data):
    """A finished search: folder, record; not to be changed."""
    out = tmp_path_factory.mktemp("search") / "out"
    return out, _search(_asked(tiny_folder, data), out)


def _without_dates(record):
    cost = {"runs": record["cost"]["runs"], "steps": record["cost"]["steps"]}
    return {**record, "created": None, "cost": cost}


def test_the_record_has_every_trial_with_its_rungs_scores_and_why_it_was_dropped(
    searched,
):
    out, record = searched
    assert json.loads((out / "search.json").read_text()) == record
    assert record["finished"]
    (found,) = record["searches"]
    assert len(found["trials"]) == 9
    assert found["chosen"] == found["trials"][0]["name"]
    assert [len(t["rungs"]) for t in found["trials"]] == [2, 2, 2] + [1] * 6
    for trial in found["trials"][1:]:
        assert trial["dropped"] == "others did better"
    for trial in found["trials"]:
        for rung in trial["rungs"]:
            assert set(rung["splits"]) == {"valid", "valid_far"}
            values = {s: f["nll"]["value"] for s, f in rung["splits"].items()}
            worst = max(values, key=values.get)
            assert rung["worst"]["nll"] == {"split": worst, "value": values[worst]}
            assert rung["kl"]["value"] > 0
            assert (out / rung["run"] / "manifest.json").exists()
    assert record["base"]["valid"]["nll"]["value"] > 0
    runs = list((out / "runs").iterdir())
    assert len(runs) == record["cost"]["runs"] == 9 + 3
    steps = [len(list(records.read_lines(run / "steps.jsonl"))) for run in runs]
    assert sum(steps) == record["cost"]["steps"] == 9 * 5 + 3 * 15


def test_those_that_go_on_from_a_rung_are_the_best_of_it(searched):
    _, record = searched
    (found,) = record["searches"]
    first = {t["name"]: t["rungs"][0]["worst"]["nll"]["value"] for t in found["trials"]}
    went_on = {t["name"] for t in found["trials"] if len(t["rungs"]) == 2}
    assert went_on == set(sorted(first, key=first.get)[:3])
    last = {
        t["name"]: t["rungs"][1]["worst"]["nll"]["value"]
        for t in found["trials"]
        if t["name"] in went_on
    }
    assert found["chosen"] == min(last, key=last.get)


def test_the_profile_trains_to_the_byte_what_the_chosen_trial_was(
    tmp_path, searched, tiny_folder, data
):
    out, record = searched
    held = tomllib.loads((out / "profile.toml").read_text())
    assert set(held) == {"objective", "optimizer"}  # what was searched, nothing else
    assert set(held["optimizer"]) == {"learning_rate"}
    layers = [
        configuration.from_profile(out / "profile.toml"),
        Layer(FLAG, _settings(tiny_folder, data)),
    ]
    del layers[1].values["optimizer.learning_rate"]
    resolved = configuration.resolve(layers)
    job = train.prepare(resolved, tmp_path / "run", Silent())
    train.train(job, tmp_path / "run", Silent())
    assert "# profile " in (tmp_path / "run/config.toml").read_text()
    best = record["searches"][0]["trials"][0]
    run = out / best["rungs"][-1]["run"]
    weights = "adapter/adapters.safetensors"
    assert (run / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()
    steps = [
        list(records.read_lines(r / "steps.jsonl")) for r in (run, tmp_path / "run")
    ]
    assert [s["nll"] for s in steps[0]] == [s["nll"] for s in steps[1]]


def test_test_splits_are_never_opened(searched, tiny_folder, data):
    out, record = searched  # they are folders: opening one ends in an error
    assert (data / "test.jsonl").is_dir()
    assert set(record["splits"]) == {"valid", "valid_far"}
    for manifest in out.glob("runs/*/manifest.json"):
        assert set(json.loads(manifest.read_text())["data"]["splits"]) == {"train"}
    with pytest.raises((OSError, DataError)):  # the proof can fail
        evaluate(_asked(tiny_folder, data), None, Silent())


def test_the_order_of_the_arms_does_not_matter(tmp_path, searched, tiny_folder, data):
    _, record = searched
    asked = _asked(tiny_folder, data)
    again = _search(asked, tmp_path / "out", arms=tuple(reversed(ARMS)))
    assert _without_dates(again) == _without_dates(record)


def test_a_finished_search_trains_and_scores_nothing_again(searched, tiny_folder, data):
    out, record = searched
    listener = Listening()
    again = _search(_asked(tiny_folder, data), out, listener)
    repeated = [t for t in listener.done if t.startswith(("train ", "drift", "score "))]
    assert set(repeated) == {
        "score the bare model on valid",
        "score the bare model on valid_far",
        "score the bare model on general",
    }
    assert _without_dates(again) == _without_dates(record)


def test_a_stopped_search_goes_on_to_the_same_end(
    tmp_path, searched, tiny_folder, data
):
    _, record = searched

    class Impatient(Listening):
        def task(self, title, total):
            if title.startswith("train ") and len(self.trained()) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().task(title, total)

        def trained(self):
            return [t for t in self.done if t.startswith("train ")]

    def stop(number, frame):
        raise Interrupted("stopped")

    asked, out = _asked(tiny_folder, data), tmp_path / "out"
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Interrupted):
            _search(asked, out, Impatient())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not json.loads((out / "search.json").read_text())["finished"]
    assert not (out / "profile.toml").exists()
    listener = Impatient()
    listener.done = ["train "] * 5
    again = _search(asked, out, listener)
    assert len(listener.trained()) == 5 + 12 - 4
    assert _without_dates(again) == _without_dates(record)


def test_what_moves_the_model_too_far_is_out_and_the_best_of_the_rest_is_chosen(
    tmp_path, searched, tiny_folder, data
):
    _, record = searched
    firsts = [t["rungs"][0] for t in record["searches"][0]["trials"]]
    budget = sorted(rung["kl"]["value"] for rung in firsts)[4]
    again = _search(
        _asked(tiny_folder, data, training__steps=5), tmp_path / "out", kl_budget=budget
    )
    (found,) = again["searches"]
    over = [t for t in found["trials"] if t["rungs"][-1]["kl"]["value"] > budget]
    assert len(over) == 4
    for trial in over:
        assert trial["dropped"].startswith("KL ")
    within = [t for t in found["trials"] if t not in over]
    best = min(within, key=lambda t: t["rungs"][-1]["worst"]["nll"]["value"])
    assert found["chosen"] == best["name"]


def test_where_the_last_rung_is_over_the_budget_the_next_best_takes_its_place(
    tmp_path, tiny_folder, data
):
    whole = _asked(tiny_folder, data)
    one = {"rates": (0.06, 0.02, 0.00667), "arms": ("sft",)}
    alone = _search(whole, tmp_path / "first", **one)
    best, *others = alone["searches"][0]["trials"]
    budget = best["rungs"][-1]["kl"]["value"] * 0.999
    assert best["rungs"][0]["kl"]["value"] < budget  # it climbs over it later on
    again = _search(whole, tmp_path / "again", kl_budget=budget, **one)
    (found,) = again["searches"]
    second = min(others, key=lambda t: t["rungs"][0]["worst"]["nll"]["value"])
    assert found["chosen"] == second["name"]
    dropped = {t["name"]: t["dropped"] for t in found["trials"]}
    assert dropped[best["name"]].startswith("KL ")
    assert [len(t["rungs"]) for t in found["trials"]] == [2, 2, 1]


def test_where_nothing_stays_within_the_budget_nothing_is_chosen(
    tmp_path, tiny_folder, data
):
    out = tmp_path / "out"
    asked = _asked(tiny_folder, data, training__steps=5)
    one = {"arms": ("sft",), "rates": (0.02,)}
    _search(asked, out, **one)
    assert (out / "profile.toml").exists()
    with pytest.raises(CheckFailed, match="No trial could be chosen") as problem:
        _search(asked, out, kl_budget=0.0, **one)
    assert problem.value.exit_code == 3
    record = json.loads((out / "search.json").read_text())
    assert record["searches"][0]["chosen"] is None
    assert not (out / "profile.toml").exists()  # that of the earlier budget


def test_a_search_per_tag_rectifies_its_rows_and_is_judged_on_them(
    tmp_path, tiny_folder
):
    folder = tmp_path / "data"
    folder.mkdir()
    _write(folder / "train.jsonl", 20, "old")
    _write(folder / "valid.jsonl", 4)
    _write(folder / "valid_far.jsonl", 5, "old")
    lines = (folder / "train.jsonl").read_text().splitlines()
    lines[:8] = [line.replace("old", "new one") for line in lines[:8]]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    asked, out = _asked(tiny_folder, folder, training__steps=5), tmp_path / "out"
    record = _search(
        asked, out, per_tag=True, arms=("sft", "dft:floor=0.1"), rates=(0.02,)
    )
    new, old = record["searches"]
    assert (new["tag"], old["tag"]) == ("new one", "old")
    assert old["scored_on"] == {"valid_far": 5}
    assert new["scored_on"] == {"valid": 4, "valid_far": 5}
    assert any("No validation row has the tag new one" in s for s in record["limits"])
    assert {t["objective"] for t in new["trials"]} == {
        "sft",
        "dft:floor=0.1,where=new one",
    }
    for found in (new, old):
        profile = configuration.from_profile(out / found["profile"])
        layers = [profile, Layer(FLAG, _settings(tiny_folder, folder))]
        job = train.prepare(configuration.resolve(layers), tmp_path / "r", Silent())
        assert str(job.objective) == found["chosen"].partition(" at ")[0]
    runs = [path.name for path in (out / "runs").iterdir()]
    assert len(runs) == 3  # plain SFT is the same for every tag


def test_without_shifted_rows_it_says_that_it_chose_in_distribution_only(
    tmp_path, tiny_folder, tiny_data
):
    asked = _asked(tiny_folder, tiny_data, training__steps=5)
    record = _search(asked, tmp_path / "out", arms=("sft",), rates=(0.02,))
    assert any("in distribution only" in said for said in record["limits"])


def test_a_plan_costs_nothing_and_writes_nothing(tmp_path, tiny_folder, data):
    listener, out = Listening(), tmp_path / "out"
    request = Request(out, arms=ARMS, kl_budget=50.0)
    found = search.prepare(_asked(tiny_folder, data), request, listener)
    assert not [t for t in listener.done if t.startswith("train ")]
    assert not out.exists()
    assert found.plan["cost"]["runs"] == 12
    assert found.plan["cost"]["seconds"] > 0
    begun = dict(found.stage.starts[0])
    assert found.stage.loaded.model.trainable_parameters() == begun


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"arms": ("dtf",)}, {}, "Did you mean 'dft'"),
        ({"arms": ("dft:where=hard",)}, {}, "No training row has the tag"),
        ({"per_tag": True}, {}, "No training row has any tag"),
        ({}, {"objective.name": "sft"}, "A search takes its objectives from --arm"),
        ({}, {"evaluation.metrics": ("length_ratio",)}, "cannot decide"),
        ({}, {"adapter.method": "full", "adapter.rank": 8}, "KL budget"),
        ({}, {"training.epochs": 1.0}, "Both steps and epochs"),
        ({}, {"training.keep_at": (1,)}, "training.keep_at: .*leaves no checkpoints"),
        ({}, {"training.best": "valid.nll"}, "A search trains every arm to its end"),
        ({}, {"evaluation.side_effects": "on"}, "side_effects: .*validation splits"),
        ({}, {"evaluation.splits": ("test",)}, "evaluation.splits: .*nothing beside"),
        ({}, {"evaluation.general": True}, "evaluation.general: .*nothing beside"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path, tiny_folder, data, changes, settings, said
):
    asked = _asked(tiny_folder, data, **settings)
    with pytest.raises(ConfigError, match=said):
        _search(asked, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_rows_to_choose_by_are_asked_for_and_other_folders_left_alone(
    tmp_path, tiny_folder, data
):
    alone = tmp_path / "data"
    alone.mkdir()
    _write(alone / "train.jsonl", 8)
    _write(alone / "test.jsonl", 8)
    with pytest.raises(DataError, match="no validation split"):
        _search(_asked(tiny_folder, alone), tmp_path / "out")
    (tmp_path / "keep").write_text("x")
    with pytest.raises(RunError, match="is no search"):
        _search(_asked(tiny_folder, data), tmp_path)
