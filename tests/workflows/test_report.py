import csv
import json

import pytest

from mlx_rsft.errors import ConfigError, RunError
from mlx_rsft.workflows.report import report

LEAST = {
    "arms": [{"name": "sft", "splits": {}}],
    "differences": [],
    "verdict": "undecided",
    "reason": "too few rows",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(LEAST))
    return tmp_path


def test_a_folder_gets_its_page_with_the_figures_beside_it(folder):
    written = report(folder, None, "en")
    assert written["verdict"] == "undecided"
    assert "too few rows" in (folder / "report.html").read_text("utf-8")
    figures = json.loads((folder / "report-figures.json").read_text("utf-8"))
    assert figures["verdict"] == "undecided"
    with (folder / "report-figures.csv").open(encoding="utf-8-sig") as file:
        assert next(csv.reader(file))[0] == "figure"
    assert json.loads((folder / "comparison.json").read_text()) == LEAST


def test_a_page_goes_where_it_is_wanted_in_the_language_wanted(folder):
    page = folder / "new" / "比較.html"
    report(folder / "comparison.json", page, "ja")
    assert '<html lang="ja">' in page.read_text("utf-8")
    assert (folder / "new" / "比較-figures.csv").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no comparison to read here"),
        ("", "This is not JSON"),
        ('{"a": NaN}', "This is not JSON: NaN is no JSON number"),
        ("[]", "not the record of a comparison: the whole is a list"),
        ("{}", "not the record of a comparison: arms is missing"),
        (b"\xff\xfe", "This is not JSON"),
    ],
)
def test_a_missing_or_wrong_record_is_refused_and_nothing_is_written(
    tmp_path, content, said
):
    path = tmp_path / "comparison.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match=said) as caught:
        report(tmp_path, None, "en")
    assert caught.value.where == str(path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["comparison.json", "page", "page.pdf"])
def test_a_page_that_is_no_html_file_is_refused(folder, name):
    with pytest.raises(ConfigError, match="HTML"):
        report(folder, folder / name, "en")
    assert json.loads((folder / "comparison.json").read_text()) == LEAST


def test_a_page_where_a_folder_is_is_refused_in_words(folder):
    (folder / "report.html").mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(ConfigError, match="cannot be written"):
        report(folder, None, "en")
    assert sorted(folder.iterdir()) == before
