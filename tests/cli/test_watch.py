import json

from .conftest import run


def test_a_suite_is_frozen_and_a_worse_model_ends_with_3(
    tmp_path, tiny_folder, tiny_data, tiny_adapter
):
    place = tmp_path / "watched"
    frozen = run(
        *("watch", "freeze", "--data", tiny_data, "--metrics", "nll"),
        *("--limit", "nll=0.1", "--out", place),
    )
    assert frozen.returncode == 0, frozen.stderr
    assert "6 rows of test, 6 rows of shifted; nll; " in frozen.stdout
    asked = ("watch", "score", place, "--model", tiny_folder)
    first = run(*asked, "--label", "bare")
    assert first.returncode == 0
    assert "bare: reference; " in first.stdout
    worse = run(*asked, "--adapter", tiny_adapter)
    assert worse.returncode == 3
    assert "test nll is beyond its limit of 0.1" in worse.stdout
    assert run(*asked, "--adapter", tiny_adapter, "--json").returncode == 3
    told = json.loads(run(*asked, "--json").stdout)
    assert told["verdict"] == "reference"
    assert (place / "drift.html").is_file()


def test_a_tolerance_has_to_be_a_number(tmp_path, tiny_data):
    given = ("--tolerance", "nll=much", "--out", tmp_path / "w")
    refused = run("watch", "freeze", "--data", tiny_data, *given)
    assert refused.returncode == 2
    assert "--tolerance" in refused.stderr
