import json

import pytest

from mlx_rsft.cli.main import group
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import METRICS


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        group.main(list(map(str, arguments)), standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_every_metric_is_listed_with_unit_direction_and_parameters(run):
    text = run("metrics")
    listed = json.loads(run("metrics", "--json"))["metrics"]
    assert set(listed) == set(METRICS)
    for name, row in listed.items():
        assert name in text
        assert row["unit"]
        assert row["better"]
        assert row["about"] in text
    assert listed["numeric"]["parameters"] == [
        "tolerance=0.0",
        "relative=0.0",
        "take=last",
    ]
    assert not listed["nll"]["by_name_only"]


def test_tags_are_shown_apart_only_when_asked(run, tmp_path, tiny_folder):
    rows = [{"prompt": f"q{n}", "completion": "a", "tags": ["new"]} for n in range(3)]
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)) + "\n")
    where = ("eval", "--model", tiny_folder, "--data", data)
    assert "test, new" not in run(*where)
    assert "test, new" in run(*where, "--by-tag")
    record = json.loads(run(*where, "--json", "--metrics", "nll,contains:case=ignore"))
    split = record["splits"]["test"]
    assert set(split["metrics"]) == {"nll", "contains:case=ignore"}
    assert split["tags"]["new"]["rows"] == 3


def test_a_rater_sheet_is_written_beside_the_figures_and_read_back(
    run, tmp_path, tiny_folder, tiny_data, tiny_adapter
):
    where = ("eval", "--model", tiny_folder, "--data", tiny_data, "--max-tokens", 4)
    for flags in (["--against", "base"], ["--rater-sheet", "x"], ["--pairs", 3]):
        with pytest.raises(ConfigError, match="needs a folder and another model"):
            run(*where, *flags)
    sheet = ("--rater-sheet", tmp_path / "blind", "--against", "base")
    said = run(*where, "--adapter", tiny_adapter, *sheet, "--pairs", 3)
    assert "3 pairs to judge" in said
    assert "nll" in said
    path = tmp_path / "blind" / "sheet.csv"
    path.write_text(path.read_text("utf-8").replace(",\n", ",A\n"), "utf-8")
    record = json.loads(run("ratings", path, "--json"))
    assert record["rated"] == record["wins"] + record["losses"] == 3
    assert "of 3 pairs rated by 1" in run("ratings", path)
