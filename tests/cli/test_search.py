import json

import pytest

from .conftest import OF_ONE_RUN, flags_of, run


@pytest.fixture
def flags(tiny_folder, tiny_data):
    given = ["--model", tiny_folder, "--data", tiny_data, "--layers", "last:1"]
    return [*given, "--steps", 5, "--batch-size", 4]


@pytest.fixture
def asked(flags, tmp_path):
    own = ["--arm", "sft", "--arm", "dft:floor=0.1", "--learning-rates", "0.01,0.02"]
    return [*flags, *own, "--kl-budget", 50, "--out", tmp_path / "out"]


def test_every_setting_of_train_can_be_searched_with():
    train, search = flags_of("train", "search")
    own = OF_ONE_RUN | {"--objective", "--profile", "--init-adapter", "--side-effects"}
    own -= {"--kl-budget"}  # of a search it is another one: of its winner
    assert train - search == own


def test_the_table_says_what_the_record_holds_and_train_takes_the_profile(
    tmp_path, asked, flags
):
    ran = run("search", *asked, "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record == json.loads((tmp_path / "out/search.json").read_text())
    assert "4 runs, 20 steps of" in " ".join(ran.stderr.split())
    (found,) = record["searches"]
    said = run("search", *asked)
    assert said.returncode == 0, said.stderr
    rows = [line for line in said.stdout.splitlines() if " at 0.0" in line]
    assert [row.split("  ")[0] for row in rows[:4]] == [
        trial["name"] for trial in found["trials"]
    ]
    assert rows[0].endswith("chosen")
    assert f"chosen: {found['chosen']}" in said.stdout
    assert "limit: " in said.stdout
    profile = tmp_path / "out/profile.toml"
    folder = tmp_path / "run"
    trained = run("train", "--profile", profile, *flags, "--run-dir", folder, "--json")
    assert trained.returncode == 0, trained.stderr
    assert f"# profile {profile}" in (folder / "config.toml").read_text()
    assert found["chosen"].startswith(
        str(json.loads((folder / "manifest.json").read_text())["objective"]["name"])
    )


def test_a_dry_run_says_what_it_costs_and_leaves_nothing(tmp_path, asked):
    ran = run("search", *asked, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1].split() == ["1", "4", "5"]
    assert "4 runs, 20 steps" in ran.stdout
    assert not (tmp_path / "out").exists()


def test_exit_codes_tell_a_spent_budget_from_bad_input(tmp_path, asked):
    ran = run("search", *asked, "--kl-budget", 0, "--json")
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["error"]["kind"] == "check"
    ran = run("search", *asked, "--learning-rates", "fast")
    assert ran.returncode == 2
    assert "'fast' is no learning rate" in " ".join(ran.stderr.split())
    ran = run("search", "--arm", "sft")
    assert ran.returncode == 2
    assert "--out" in ran.stderr
