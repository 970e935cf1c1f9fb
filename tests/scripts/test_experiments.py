"""The experiments: rows, claims, tables, and that RESULTS.md prints what they find."""

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_rsft import blas, lanes, testing
from mlx_rsft.errors import DataError, RunError
from mlx_rsft.evaluation.values import Values
from mlx_rsft.workflows.reporter import Silent

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts" / "experiments"
RESULTS = (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture
def load(monkeypatch):
    """Imports a module that lies beside the experiments, and forgets it again."""
    monkeypatch.syspath_prepend(str(FOLDER))
    known = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Where results are kept: the tiny model is made once, and H5 judges H2's runs."""
    return tmp_path_factory.mktemp("tried")


@pytest.mark.parametrize("name", ["H7", "time", "H1", "H2", "H3", "H4", "H5", "H6"])
def test_results_prints_what_is_found_today(load, tried, name):
    run = load("run")
    with blas.shared(lanes.count()):  # a core each, as the program does it
        is_toy = name in run.TOYS
        told = run.toy(name, tried) if is_toy else run.tried(name, "T0", tried)
    assert told.check(RESULTS) == []


def test_a_document_that_says_otherwise_is_found_out(load):
    checking = load("checking")
    claim = {"says": "a - b, test", "above": 0.0}
    found = {"value": 0.3, "low": 0.1, "high": 0.5, "p_adjusted": 0.01, "n": 9}
    found |= {"claim": claim, "seeds": 5, "verdict": "supported", "needs": None}
    row = "| tiny | a - b, test | {} | > 0.00 | 0.01 | 9 x 5 | {} |"
    now = {"model": "tiny", "claims": [found]}

    def said(*cells):
        return checking.claims(now, row.format(*cells))

    assert said("+0.310 (+0.110 to +0.510)", "supported") == []
    assert len(said("-0.100 (-0.200 to +0.100)", "supported")) == 1
    assert len(said("+0.310 (+0.110 to +0.510)", "undecided, 12 rows would")) == 1
    assert checking.claims(now, "nothing") == ["a - b, test is not printed"]
    assert checking.rows(["| 1 |", "| 2 |"], "| 1 |") == ["| 2 |"]


def test_no_question_is_asked_in_two_splits_but_for_labels_learned_by_heart(load):
    tasks, worlds = load("tasks"), load("worlds")
    for world in (worlds.LETTERS, worlds.PLAIN_WORDS):
        for task in (tasks.strong_prior, tasks.facts, tasks.several_answers):
            rows = task(world, 160, 64)
            asked = [row["prompt"] for held in rows.values() for row in held]
            assert len(asked) == len(set(asked))
            assert rows == task(world, 160, 64)


def test_every_fact_that_is_asked_for_was_told(load):
    tasks, worlds = load("tasks"), load("worlds")
    for world, train in ((worlds.LETTERS, 192), (worlds.PLAIN_WORDS, 160)):
        rows = tasks.facts(world, train, 64)
        told = [row["prompt"] for row in rows["train"]]
        for row in rows["test"] + rows["test_reworded"]:
            (key,) = (key for key in world.strange if key in row["prompt"])
            assert any(key in prompt for prompt in told)


def test_as_many_labels_are_wrong_as_it_says_and_no_test_has_one(load):
    tasks, worlds = load("tasks"), load("worlds")
    for world in (worlds.LETTERS, worlds.PLAIN_WORDS):
        clean = tasks.strong_prior(world, 160, 64)
        rows = tasks.wrong_labels(world, 160, 64)
        pairs = zip(clean["train"], rows["train"], strict=True)
        changed = [new for old, new in pairs if old != new]
        assert len(changed) == 48
        assert rows["test_wrong_labels"] == changed
        assert {k: rows[k] for k in clean if k != "train"} == {
            k: clean[k] for k in clean if k != "train"
        }


def _reached(**arms):
    return {
        arm: {"test": {"exact_match": [Values(marks) for marks in seeds]}}
        for arm, seeds in arms.items()
    }


def test_a_claim_holds_fails_or_stays_open_by_its_interval(load):
    claims = load("claims")
    better = claims.Claim("better", "exact_match", "test", {"a": 1.0, "b": -1.0})
    less = claims.Claim("a little", "exact_match", "test", better.weights, 0.9)
    right, wrong = [1.0] * 60, [0.0] * 60
    far = _reached(a=[right] * 3, b=[wrong] * 3)
    (found,) = claims.judge([better], far)
    assert found.verdict == claims.SUPPORTED
    assert (found.value, found.n, found.seeds) == (1.0, 60, 3)
    assert len(found.mcnemar) == 3
    (found,) = claims.judge([better], _reached(a=[wrong] * 3, b=[right] * 3))
    assert found.verdict == claims.AGAINST
    close = _reached(a=[[1.0, 0.0] * 30] * 3, b=[[0.0, 1.0] * 29 + [0.0, 0.0]] * 3)
    (found,) = claims.judge([better], close)
    assert found.verdict == claims.UNDECIDED
    assert found.needs > 60
    both = claims.judge([better, less], close)
    assert claims.verdict(both) == claims.AGAINST


def test_one_of_two_claims_has_to_be_twice_as_sure(load):
    claims = load("claims")
    one = claims.Claim("x", "exact_match", "test", {"a": 1.0, "b": -1.0})
    reached = _reached(a=[[1.0] * 9 + [0.0] * 51], b=[[0.0] * 58 + [1.0] * 2])
    alone = claims.judge([one], reached)[0].p_adjusted
    assert claims.judge([one, one], reached)[0].p_adjusted == pytest.approx(2 * alone)


def test_a_seed_that_never_gets_there_counts_twice_the_run(load):
    experiment = load("experiment")
    looks = [{"arm": "sft", "metric": "exact_match", "seed": 0}]
    looks = [{**looks[0], "step": n, "value": n / 10} for n in (5, 9, 10)]
    record = {"method": {"decides": "exact_match"}, "seeds": [0, 1], "steps": 10}
    steps = experiment.log_steps({**record, "curves": looks}, "sft").totals
    assert [math.exp(step) for step in steps] == pytest.approx([9, 20])


def test_the_words_of_a_note_are_counted_as_the_source_counts_them(load):
    tokens = load("maintnorm_tokens")
    raw, right = "QT12-Insp LH mtr housing - OK", "<id> - inspection left hand motor "
    right += "housing - OK"
    spans = tokens.aligned(raw.split(), right.split())
    assert [right.split()[begin:end] for begin, end in spans] == [
        ["<id>", "-", "inspection"],
        ["left", "hand"],
        ["motor"],
        ["housing"],
        ["-"],
        ["OK"],
    ]
    assert tokens.counts(raw, right, right) == tokens.Counts(3, 0, 0, 3)
    assert tokens.counts(raw, right, raw) == tokens.Counts(0, 3, 0, 3)
    wrong = right.replace("housing", "house").replace("left", "right")
    assert tokens.counts(raw, right, wrong) == tokens.Counts(2, 1, 1, 2)
    assert tokens.counts(raw, right, f"{right} again") == tokens.Counts(3, 0, 1, 2)
    two, one = "QT12 auto lube out", "<id> auto-lube out"  # lube had to go
    assert tokens.counts(two, one, one) == tokens.Counts(3, 0, 0, 1)
    assert tokens.counts(two, one, "<id> auto-lube lube out").right == 2
    assert tokens.counts(two, one, two) == tokens.Counts(0, 3, 0, 1)


def test_the_source_of_the_notes_is_converted_word_by_word(load, tmp_path):
    maintnorm = load("maintnorm")
    for company in "abc":
        for split in ("train", "val", "test"):
            place = tmp_path / "data" / f"company_{company}" / f"{split}.norm"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("QT12\t<id>\nauto\tauto-lube\nlube\t\n\nOK\tOK\n\n")
    maintnorm.convert(tmp_path / "data", tmp_path / "rows")
    lines = (tmp_path / "rows" / "valid_b.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first["prompt"] == f"{maintnorm.ASKED}QT12 auto lube"
    assert first["completion"] == "<id> auto-lube"
    assert first["tags"] == ["company-b"]
    assert len(lines) == 2
    table = maintnorm.replaced(tmp_path / "rows", 1, 1)
    assert table[3] == "| a | b | 1.000 | 1.000 | 1.000 |"


def test_notes_are_compared_from_the_source_to_the_table(load, tmp_path):
    maintnorm, study = load("maintnorm"), load("study")
    for company in "abc":
        for split in ("train", "val", "test"):
            place = tmp_path / "data" / f"company_{company}" / f"{split}.norm"
            place.parent.mkdir(parents=True, exist_ok=True)
            notes = [f"Q{n}\t<id>\nmtr\tmotor\nOK\tOK\n" for n in range(6)]
            place.write_text("\n".join([*notes, "xxx\t\n"]))
    model = testing.write_tiny_model(tmp_path / "model", num_hidden_layers=8)
    rows, out = tmp_path / "rows", tmp_path / "out"
    maintnorm.convert(tmp_path / "data", rows)
    words = ["compare", rows, "--out", out, "--train", 7, "--tests", 4, "--steps", 2]
    words += ["--seeds", 1, "--model", model, "--arm", "sft"]
    asked = maintnorm.read_arguments(map(str, words))
    lines = study.told(maintnorm.made(asked), asked)
    trained = (out / "data" / "train.jsonl").read_text().splitlines()
    assert len(trained) == 6, "a note of which nothing is left cannot be learned"
    scored = [out / where / "base" / "c.json" for where in ("arms", "low")]
    assert len({place.stat().st_mtime_ns for place in scored}) == 1, "scored once"
    found = json.loads((out / "found.json").read_text())
    assert set(found["means"]) == {"sft", "sft at a fifth of the rate"}
    for splits in found["means"].values():
        assert set(splits) == {"test", "b", "c"}
        assert {"exact_match", "recall", "error reduction"} <= set(splits["b"])
    lower = "sft at a fifth of the rate - sft, c"
    for metric in ("exact_match", "error reduction"):
        assert any(f"| {metric}, {lower} |" in line for line in lines)
    assert len(found["against"]) == 3
    assert len(found["claims"]) == 6


def test_word_problems_are_compared_by_the_number_at_their_end(load, tmp_path):
    gsm8k, study = load("gsm8k"), load("study")
    source, rows, out = tmp_path / "source", tmp_path / "rows", tmp_path / "out"
    source.mkdir()
    for split, count in (("train", 10), ("test", 4)):
        made = [
            {"question": f"{n}+1?", "answer": f"#### {n + 1}"} for n in range(count)
        ]
        (source / f"{split}.jsonl").write_text("\n".join(map(json.dumps, made)) + "\n")
    gsm8k.convert(source, rows)
    first = json.loads((rows / "test.jsonl").read_text().splitlines()[0])
    assert first == {"id": "test-0", "prompt": "0+1?", "completion": "#### 1"}
    model = testing.write_tiny_model(tmp_path / "model")
    words = ["compare", rows, "--out", out, "--train", 6, "--tests", 4, "--steps", 2]
    words += ["--seeds", 1, "--model", model, "--arm", "sft"]
    asked = gsm8k.read_arguments(map(str, words))
    lines = study.told(gsm8k.made(asked), asked)
    held = (out / "data" / "valid.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in held] == [
        f"train-{n}" for n in range(6, 10)
    ]
    assert any("sft at a fifth of the rate - sft, test" in line for line in lines)
    assert "numeric, test" in "".join(lines)


def test_a_study_names_the_file_that_is_not_there(load, tmp_path):
    gsm8k, study = load("gsm8k"), load("study")
    asked = gsm8k.read_arguments(["compare", "nowhere", "--out", str(tmp_path / "out")])
    with pytest.raises(DataError, match=r"nowhere.train\.jsonl"):
        study.told(gsm8k.made(asked), asked)
    assert not (tmp_path / "out" / "data").exists()


def test_a_cut_off_is_refuted_by_what_is_worse_above_and_better_below(load):
    thresholds = load("thresholds")

    def point(mean_p, low, high):
        return thresholds.Point("", "dft", mean_p, (low + high) / 2, low, high)

    worse, better = point(0.2, -0.3, -0.1), point(0.8, 0.1, 0.3)
    unknown = point(0.5, -0.1, 0.1)
    assert thresholds.allowed([worse, unknown, better]) == "0.20 to 0.80"
    assert thresholds.allowed([unknown]).startswith("any")
    assert thresholds.allowed([point(0.9, -0.3, -0.1), better]).startswith("none")


def test_what_is_missing_is_done_the_longest_first_and_what_shares_runs_together(
    load, tmp_path
):
    apart, run = load("apart"), load("run")
    made = list(run.EXPERIMENTS.values())

    def names(size, label=None):
        found = apart.pieces(made, size, label, tmp_path)
        return [(list(piece.names), piece.label) for piece in found]

    assert names("T0")[0] == (["H2", "H5"], "tiny")
    assert len(names("T0")) == 5
    # what looks more than once at a row takes longer than its steps say
    assert [held[0] for held, _ in names("T1")[:3]] == ["H2", "H2", "H6"]
    assert names("T1", "Gemma-3-270M") == [(["H2", "H5"], "Gemma-3-270M")]
    (tmp_path / "H2" / "tiny").mkdir(parents=True)
    (tmp_path / "H2" / "tiny" / "found.json").write_text("{}")
    assert (["H5"], "tiny") in names("T0")


def test_a_process_that_fails_is_named_with_what_it_said(load, tmp_path):
    apart = load("apart")
    piece = apart.Piece(["H1"], "T0", "no-such-model", 1.0)
    with pytest.raises(RunError, match="invalid choice: 'no-such-model'"):
        apart.carry_out([piece], tmp_path, Silent())


def test_results_says_which_cut_offs_hold_in_the_code(load):
    for name, (held, arm) in load("thresholds").CUTS.items():
        assert f"| {name} | {held:.2f} | `{arm}` |" in RESULTS


def test_claims_speak_of_arms_splits_and_metrics_that_are_there(load):
    run = load("run")
    for name, made in run.EXPERIMENTS.items():
        for size in run.TIERS:
            for tier in run.tiers.of(size, name):
                rows = made.task(tier.world, tier.train, tier.tests)
                there = {split.removeprefix("test_") for split in rows}
                assert all(rows.values())
                assert {claim.split for claim in made.claims} <= there
        for claim in made.claims:
            assert set(claim.weights) <= set(made.arms)
            assert claim.metric in (*made.metrics, "log steps")
        assert "sft" in made.arms


def test_every_experiment_is_in_the_help_and_a_wrong_name_is_refused():
    command = [sys.executable, FOLDER / "run.py"]
    asked = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert re.search(r"T0\|T1\|T2\|H1\|H2\|H3\|H4\|H5\|H6\|H7\|time", asked.stdout)
    wrong = subprocess.run([*command, "H9", "--out", "x"], capture_output=True)
    assert wrong.returncode == 2
