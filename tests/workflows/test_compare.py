import csv
import json
import os
import signal

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import config, records
from mlx_rsft.config import Layer
from mlx_rsft.errors import ConfigError, DataError, Interrupted, RunError
from mlx_rsft.evaluation.values import Values
from mlx_rsft.workflows import aftermath, arms, audit, compare, scored, train
from mlx_rsft.workflows.compare import Request
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening, short_run, short_settings


def _request(out, **changes):
    given = {"arms": ("sft", "dft:floor=0.1"), "out": out, "seeds": 2}
    return Request(**{**given, **changes})


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_folder, tiny_data):
    """One finished comparison: folder, record, and what was done; not to be changed."""
    out, listener = tmp_path_factory.mktemp("compared") / "out", Listening()
    asked = short_run(tiny_folder, tiny_data)
    return out, compare.compare(asked, _request(out), listener), listener.done


def test_the_record_has_what_the_contract_says(compared):
    out, record, _ = compared
    assert json.loads((out / "comparison.json").read_text()) == record
    assert {
        *("version", "model", "data", "created", "seeds", "steps", "level", "splits"),
        *("baseline", "arms", "differences", "curves", "histograms", "side_effects"),
        *("examples", "verdict", "reason", "limits", "method"),
    } <= set(record)
    assert [arm["name"] for arm in record["arms"]] == ["base", "sft", "dft:floor=0.1"]
    assert record["splits"]["test"] == {"rows": 6, "tokens": 12, "role": "in"}
    assert record["splits"]["shifted"]["role"] == "shifted"
    assert record["baseline"] == "sft"
    tuned = record["arms"][2]
    assert set(tuned["cost"]) == {"seconds", "joules", "peak_bytes", "tokens"}
    assert 0 < tuned["training"]["ess"] <= 1 + 1e-6  # in float32
    assert set(tuned["splits"]["shifted"]["metrics"]) == {"exact_match", "nll"}
    assert {"p_adjusted", "detectable", "test", "better"} <= set(
        record["differences"][0]
    )
    assert len(record["differences"]) == 2 * 2
    with (out / "differences.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_what_training_did_beside_its_task_is_told_of_every_arm(compared):
    _, record, _ = compared
    names = ["sft", "dft:floor=0.1"]
    seen = record["histograms"]
    assert list(seen["after"]) == names
    counted = sum(seen["before"])
    assert counted > 0
    assert {sum(counts) for counts in seen["after"].values()} == {counted}
    _, sft, dft = (arm["training"] for arm in record["arms"])
    assert set(sft["weight_by_class"].values()) == {1.0}
    assert all(0.1 <= w < 1 for w in dft["weight_by_class"].values())
    effects = {(e["arm"], e["set"], e["metric"]): e for e in record["side_effects"]}
    for arm in names:
        for name in ("task", "general"):
            drift = effects[arm, name, "drift_kl"]
            assert drift["value"] > 0
            assert drift["better"] == "lower"
        assert (arm, "task", "end_of_turn") in effects
        assert (arm, "general", "drift_nll") in effects
        assert effects[arm, "harmful", "refusal"]["better"] == "higher"
        assert effects[arm, "harmless", "refusal"]["better"] == "lower"
    bare = {key[1:] for key in effects if key[0] == "base"}
    assert bare == {key[1:] for key in effects if "drift" not in key[2]}


def test_what_was_found_beside_the_task_is_in_the_manifest_and_all_is_sealed(compared):
    out, record, _ = compared
    tuned = [e for e in record["side_effects"] if e["arm"] == "sft"]
    held = json.loads((out / "runs" / "sft-seed0" / "manifest.json").read_text())
    assert [e["value"] for e in held["effects"]] == [e["value"] for e in tuned]
    for run in (out / "runs").iterdir():
        assert not audit.verify(run).findings


def test_side_effects_are_looked_for_unless_somebody_turns_that_off(
    tmp_path, tiny_folder, tiny_data
):
    def beside(**more):
        asked = short_run(tiny_folder, tiny_data, **more)
        record = compare.compare(asked, _request(tmp_path / "out", seeds=1), Silent())
        card = json.loads((tmp_path / "out/runs/sft-seed0/manifest.json").read_text())
        return bool(record["side_effects"]), bool(card.get("effects"))

    assert beside(**{"evaluation.side_effects": "off"}) == (False, False)
    assert beside() == (True, True)  # of the same runs


def test_answers_are_shown_where_arms_differ(compared):
    _, record, _ = compared
    for example in record["examples"]:
        assert set(example["answers"]) == {"sft", "dft:floor=0.1"}
        for arm, text in example["answers"].items():
            assert example["right"][arm] == (text.strip() == example["reference"])

    class Told:
        gauges = ("exact_match",)
        arms = ("a", "b")
        seeds = (0,)

    def reached(*marks):
        return {"test": {"exact_match": [Values(marks)]}}

    some = {"a": reached(1, 0, 1, 0), "b": reached(1, 1, 0, 0)}
    assert aftermath.disputed(Told(), some, "test") == [1, 2]
    Told.gauges = ("nll",)
    assert aftermath.disputed(Told(), some, "test") == []


def test_an_arm_is_to_the_byte_what_train_makes_of_the_same_seed(
    tmp_path, compared, tiny_folder, tiny_data
):
    out, _, _ = compared
    for seed in (0, 1):
        asked = short_run(
            tiny_folder,
            tiny_data,
            seed=seed,
            objective__name="dft:floor=0.1",
            training__trunk_cache="memory",  # not worth it here, but to the same bits
        )
        run = tmp_path / str(seed)
        train.train(train.prepare(asked, run, Silent()), run, Silent())
        alone = (run / "adapter/adapters.safetensors").read_bytes()
        arm = out / "runs" / f"dft-floor=0.1-seed{seed}" / "adapter"
        assert (arm / "adapters.safetensors").read_bytes() == alone


def test_every_arm_begins_alike_and_reads_the_same_rows(compared):
    out, _, _ = compared
    for seed in (0, 1):
        first = [
            next(records.read_lines(out / "runs" / f"{arm}-seed{seed}/steps.jsonl"))
            for arm in ("sft", "dft-floor=0.1")
        ]
        assert first[0]["nll"] == first[1]["nll"]
        assert first[0]["tokens"] == first[1]["tokens"]
        assert first[0]["loss"] != first[1]["loss"]


def test_no_test_split_is_read_before_all_is_trained_and_shifted_ones_are_last(
    compared,
):
    _, _, done = compared
    read = [n for n, title in enumerate(done) if title.endswith(("on test", "shifted"))]
    scored = [n for n in read if done[n].startswith("score")]
    assert max(n for n, title in enumerate(done) if "train" in title) < min(scored)
    order = [done[n].rsplit(" ", 1)[1] for n in scored]
    assert order == ["test"] * 5 + ["shifted"] * 5


def test_what_can_be_found_is_said_before_anything_is_trained(compared):
    out, record, done = compared
    plan = json.loads((out / "plan.json").read_text())
    assert plan["splits"]["shifted"]["rows"] == 6
    said = next(n for n, text in enumerate(done) if "likely to be found" in text)
    assert said < next(n for n, text in enumerate(done) if text.startswith("train"))
    stated = {
        (split, metric): size
        for split, told in plan["splits"].items()
        for metric, size in told["detectable"].items()
    }
    for found in record["differences"]:
        assert found["detectable"] == stated[found["split"], found["metric"]]
    first = min((out / "runs").glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)
    assert plan["created"] <= json.loads(first.read_text())["started"]


def test_curves_begin_with_the_bare_model_and_show_valid_only(compared):
    _, record, _ = compared
    points = [p for p in record["curves"] if (p["arm"], p["seed"]) == ("sft", 1)]
    steps = [p["step"] for p in points if p["metric"] == "nll"]
    assert steps == [0, 1, 2, 3, 4]
    assert {p["split"] for p in record["curves"]} == {"valid"}
    values = [p["value"] for p in points if p["metric"] == "nll"]
    assert values[-1] < values[0]


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_a_finished_comparison_runs_no_model_again(
    compared, tiny_folder, tiny_data, cache
):
    out, record, _ = compared
    listener = Listening()
    asked = short_run(tiny_folder, tiny_data, training__trunk_cache=cache)
    again = compare.compare(asked, _request(out), listener)
    work = ("train ", "score", "look", "run ")
    assert not [task for task in listener.done if task.startswith(work)]
    assert {**again, "created": 0} == {**record, "created": 0}


def test_scores_are_those_of_the_saved_adapter(compared, tiny_folder, tiny_data):
    out, record, _ = compared
    from mlx_rsft.workflows.evaluate import evaluate

    values = []
    for seed in (0, 1):
        asked = short_run(tiny_folder, tiny_data)
        found = evaluate(asked, out / f"runs/sft-seed{seed}/adapter", Silent())
        values.append(found["splits"]["shifted"]["metrics"]["nll"]["value"])
    arm = record["arms"][1]["splits"]["shifted"]["metrics"]["nll"]
    assert arm["value"] == pytest.approx(sum(values) / 2, rel=1e-5)


def test_what_was_written_is_kept_beside_its_marks(tmp_path, tiny_folder, tiny_data):
    marks_of_written = {"evaluation__metrics": ("exact_match", "generated_exact_match")}
    asked, out = short_run(tiny_folder, tiny_data, **marks_of_written), tmp_path / "out"
    compare.compare(asked, _request(out, arms=("sft",), seeds=1), Silent())
    lines = (tiny_data / "test_shifted.jsonl").read_text().splitlines()
    right = [json.loads(line)["completion"] for line in lines]
    (place,) = out.glob("runs/*/scores/shifted.json")
    scores = json.loads(place.read_text())
    answers = zip(scores["answers"], right, strict=True)
    marks = [float(answer.strip() == shown) for answer, shown in answers]
    assert marks == scores["rows"]["generated_exact_match"]["totals"]


def test_looks_during_a_run_draw_no_samples_unless_they_decide(
    tmp_path, tiny_folder, tiny_data
):
    def looked_at(*metrics):
        given = {"evaluation__metrics": metrics, "evaluation__samples": 2}
        asked, out = short_run(tiny_folder, tiny_data, **given), tmp_path / metrics[0]
        compare.compare(asked, _request(out, arms=("sft",), seeds=1), Silent())
        (run,) = out.glob("runs/*")
        scores = json.loads((run / "scores" / "test.json").read_text())
        assert set(scores["rows"]) == set(metrics)
        return {look["metric"] for look in records.read_lines(run / "evals.jsonl")}

    assert looked_at("exact_match", "distinct_answers") == {"exact_match"}
    assert looked_at("avg_at_n", "exact_match") == {"avg_at_n", "exact_match"}


def test_a_setting_of_one_run_is_refused_by_name_and_not_from_its_own_file(
    tmp_path, tiny_folder, tiny_data
):
    keep = {"training__keep_at": (1,)}
    asked = short_run(tiny_folder, tiny_data, **keep)
    with pytest.raises(ConfigError, match=r"keep_at: A comparison .* no checkpoints"):
        compare.prepare(asked, _request(tmp_path / "out"), Silent())
    settings = short_settings(tiny_folder, tiny_data, **keep)
    asked = config.resolve([Layer("config.toml", settings)])
    compare.prepare(asked, _request(tmp_path / "out"), Silent())


def test_a_stopped_comparison_goes_on_where_it_was(
    tmp_path, compared, tiny_folder, tiny_data
):
    _, record, _ = compared
    asked, out = short_run(tiny_folder, tiny_data), tmp_path / "out"

    class Impatient(Listening):
        def task(self, title, total):
            if self.done.count("train sft") == 1 and title == "train sft":
                os.kill(os.getpid(), signal.SIGINT)
            return super().task(title, total)

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            compare.compare(asked, _request(out), Impatient())
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (out / "comparison.json").exists()
    listener = Listening()
    again = compare.compare(asked, _request(out), listener)
    trained = [title for title in listener.done if title.startswith("train ")]
    assert trained == ["train sft", "train dft:floor=0.1"]
    for found, expected in zip(again["arms"], record["arms"], strict=True):
        assert found["splits"] == expected["splits"]


def test_a_stop_request_within_a_run_says_that_the_same_command_goes_on(
    tmp_path, tiny_folder, tiny_data
):
    class Impatient(Silent):
        def task(self, title, total):
            if title == "validate":
                os.kill(os.getpid(), signal.SIGTERM)
            return super().task(title, total)

    asked, out = short_run(tiny_folder, tiny_data), tmp_path / "out"
    with pytest.raises(Interrupted, match="Stopped in sft-seed0, after 1 of 4"):
        compare.compare(asked, _request(out), Impatient())
    record = compare.compare(asked, _request(out, seeds=1), Silent())
    assert record["arms"][1]["seeds"] == [0]


def test_runs_of_another_comparison_are_neither_used_nor_overwritten(
    tmp_path, tiny_folder, tiny_data
):
    asked, out = short_run(tiny_folder, tiny_data), tmp_path / "out"
    compare.compare(asked, _request(out, seeds=1), Silent())
    plan = (out / "plan.json").read_text()
    other = short_run(tiny_folder, tiny_data, optimizer__learning_rate=0.01)
    with pytest.raises(RunError, match="its settings differ in optimizer"):
        compare.compare(other, _request(out, seeds=1), Silent())
    moved = tmp_path / "data"
    moved.mkdir()
    for file in tiny_data.glob("*.jsonl"):
        (moved / file.name).write_text(file.read_text())
    same = short_run(tiny_folder, moved)
    compare.compare(same, _request(out, seeds=1), Silent())
    rows = (moved / "train.jsonl").read_text()
    (moved / "train.jsonl").write_text(rows.replace("train 3", "train three"))
    with pytest.raises(RunError, match="its rows of train were others"):
        compare.compare(same, _request(out, seeds=1), Silent())
    assert json.loads((out / "plan.json").read_text()) == json.loads(plan)


def test_a_plan_that_is_changed_later_is_kept_and_told(
    tmp_path, tiny_folder, tiny_data
):
    asked, out = short_run(tiny_folder, tiny_data), tmp_path / "out"
    compare.compare(asked, _request(out, seeds=1), Silent())
    more = _request(out, seeds=1, arms=("sft", "dft:floor=0.1", "dft"))
    record = compare.compare(asked, more, Silent())
    assert any("plan was changed" in limit for limit in record["limits"])
    plan = json.loads((out / "plan.json").read_text())
    assert plan["earlier"][0]["arms"] == ["sft", "dft:floor=0.1"]
    assert len(record["differences"]) == 2 * 2 * 2


def test_a_tuned_rate_comes_from_a_grid_that_is_the_same_for_all(
    tmp_path, tiny_folder, tiny_data
):
    asked = short_run(tiny_folder, tiny_data, evaluation__metrics=("nll",))
    request = _request(tmp_path / "out", seeds=1, tune_rate=True)
    record = compare.compare(asked, request, Silent())
    runs = {path.name for path in (tmp_path / "out/runs").iterdir()}
    for arm in ("sft", "dft-floor=0.1"):
        for rate in ("0.00667", "0.02", "0.06"):
            assert f"{arm}-rate{rate}-seed0" in runs
    for arm in record["arms"][1:]:
        name = arm["name"].replace(":", "-")
        reached = {}
        for rate in (0.00667, 0.02, 0.06):
            file = tmp_path / f"out/runs/{name}-rate{rate:g}-seed0/evals.jsonl"
            reached[rate] = list(records.read_lines(file))[-1]["value"]
        assert arm["learning_rate"] == min(reached, key=reached.get)
    assert not any("not tuned" in limit for limit in record["limits"])


def test_one_seed_is_tested_exactly_and_its_limit_is_told(
    tmp_path, tiny_folder, tiny_data
):
    asked = short_run(tiny_folder, tiny_data)
    record = compare.compare(asked, _request(tmp_path / "o", seeds=1), Silent())
    kinds = {d["metric"]: d["test"] for d in record["differences"]}
    assert kinds == {"exact_match": "mcnemar", "nll": "bootstrap"}
    assert any(limit.startswith("One seed") for limit in record["limits"])


def test_full_fine_tuning_leaves_every_arm_the_same_base(
    tmp_path, tiny_folder, tiny_data
):
    asked = short_run(
        tiny_folder,
        tiny_data,
        adapter__method="full",
        adapter__rank=8,
        optimizer__learning_rate=1e-3,
    )
    record = compare.compare(asked, _request(tmp_path / "o"), Silent())
    firsts = {
        next(records.read_lines(run / "steps.jsonl"))["nll"]
        for run in (tmp_path / "o/runs").glob("*-seed0")
    }
    assert len(firsts) == 1
    assert record["arms"][0]["name"] == "base"


def test_each_seed_has_its_own_beginning_and_it_is_restored(
    tmp_path, tiny_folder, tiny_data
):
    asked = short_run(tiny_folder, tiny_data)
    stage = compare.prepare(asked, _request(tmp_path / "o"), Silent())
    one, other = (dict(tree_flatten(stage.starts[seed])) for seed in (0, 1))
    name = next(name for name in one if name.endswith("lora_a"))
    assert not mx.array_equal(one[name], other[name])
    stage.loaded.model.load_weights([(name, mx.zeros_like(one[name]))], strict=False)
    stage.begin(1)
    now = dict(tree_flatten(stage.loaded.model.trainable_parameters()))
    assert mx.array_equal(now[name], other[name])


def test_the_frozen_blocks_are_run_once_for_all(tmp_path, tiny_folder, tiny_data):
    asked = short_run(tiny_folder, tiny_data, training__trunk_cache="memory")
    stage = compare.prepare(asked, _request(tmp_path / "o"), Silent())
    runs = arms.train_all(stage, tune=False, reporter=Silent())
    scored.measure_all(stage, runs, Silent())
    # 16 of 20 rows in one order, others in another; 4 valid, 6 test, 6 shifted.
    assert stage.trunk.stats.misses <= 20 + 4 + 6 + 6


@pytest.mark.parametrize(
    ("request_changes", "settings", "said"),
    [
        ({"arms": ()}, {}, "No arm is given"),
        ({"arms": ("sft", "dtf")}, {}, "Did you mean 'dft'"),
        ({"arms": ("dft:floor=0.1", "dft:floor=0.10")}, {}, "there twice"),
        ({"arms": ("sft", "dft:where=hard")}, {}, "No training row has the tag"),
        ({"baseline": "dft"}, {}, "is no arm"),
        ({}, {"objective.name": "sft"}, "from --arm"),
        ({}, {"evaluation.metrics": ("perplexity",)}, "nll"),
        ({}, {"training.epochs": 1.0}, "Both steps and epochs"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    tmp_path, tiny_folder, tiny_data, request_changes, settings, said
):
    asked = short_run(tiny_folder, tiny_data, **settings)
    with pytest.raises(ConfigError, match=said) as problem:
        compare.compare(asked, _request(tmp_path / "o", **request_changes), Silent())
    assert problem.value.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_data_without_what_is_needed_is_refused(tmp_path, tiny_folder, tiny_data):
    alone = tmp_path / "data"
    alone.mkdir()
    (alone / "train.jsonl").write_text((tiny_data / "train.jsonl").read_text())
    with pytest.raises(DataError, match="no test split"):
        compare.compare(
            short_run(tiny_folder, alone), _request(tmp_path / "o"), Silent()
        )
    (alone / "test.jsonl").write_text((tiny_data / "test.jsonl").read_text())
    asked = short_run(tiny_folder, alone)
    with pytest.raises(DataError, match="tuned on the split valid"):
        compare.compare(asked, _request(tmp_path / "o", tune_rate=True), Silent())
    record = compare.compare(asked, _request(tmp_path / "o", seeds=1), Silent())
    assert record["curves"] == []
    assert any("no valid split" in limit for limit in record["limits"])
    assert any("No split has shifted" in limit for limit in record["limits"])


def test_a_folder_with_something_else_in_it_is_not_written_to(
    tmp_path, tiny_folder, tiny_data
):
    (tmp_path / "keep").write_text("x")
    with pytest.raises(RunError, match="no comparison"):
        compare.compare(short_run(tiny_folder, tiny_data), _request(tmp_path), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
