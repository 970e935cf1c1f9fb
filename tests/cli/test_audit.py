import json
import shutil

import pytest

from .conftest import run

FLAGS = ("--objective", "dft:floor=0.1", "--layers", "last:2", "--steps", 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_folder, tiny_data):
    folder = tmp_path_factory.mktemp("audited") / "run"
    where = ("--model", tiny_folder, "--data", tiny_data, "--run-dir", folder)
    assert run("train", *where, *FLAGS).returncode == 0
    return folder


def test_a_sound_run_ends_with_0_and_an_altered_one_with_3_by_name(done, tmp_path):
    sound = run("audit", "verify", done)
    assert sound.returncode == 0
    assert "sealed files are as written; ended after step 3; seal" in sound.stdout
    folder = shutil.copytree(done, tmp_path / "run")
    with (folder / "config.toml").open("a") as file:
        file.write(" ")
    altered = run("audit", "verify", folder)
    assert altered.returncode == 3
    assert altered.stdout.startswith("config.toml: altered: SHA-256 ")
    told = json.loads(run("audit", "verify", folder, "--json").stdout)
    assert told["sound"] is False
    assert [one["file"] for one in told["findings"]] == ["config.toml"]


def test_the_story_ends_with_the_seal_that_verify_takes(done):
    seal = run("audit", "show", done).stdout.split()[-1]
    assert run("audit", "verify", done, "--seal", seal).returncode == 0
    assert run("audit", "verify", done, "--seal", "f" * 64).returncode == 3


def test_rows_are_explained_together_and_one_by_one(done):
    every = run("audit", "explain", done, "--most", 2)
    assert every.returncode == 0, every.stderr
    assert "20 rows, mean weight " in every.stdout
    assert "-> " in every.stdout
    (most, _) = json.loads(run("audit", "explain", done, "--json").stdout)[
        "most_damped"
    ][:2]
    one = run("audit", "explain", done, "--row", most["where"])
    assert "rank 1 of 20 from the most damped" in one.stdout
    assert "rows.jsonl holds " in one.stdout
    assert run("audit", "explain", done, "--row", "none").returncode == 2


def test_a_run_is_repeated_from_its_own_files(done, tmp_path):
    again = run("audit", "rerun", done, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("the same bytes: ")
