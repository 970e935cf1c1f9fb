import re

from mlx_rsft.report import tables
from mlx_rsft.report.comparison import from_record
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.words import Words

EN = Words("en")


def _rows(markup):
    """Cells of a table by the name of their row, as text."""
    rows = {}
    for row in re.findall(r"<tr.*?</tr>", markup)[1:]:
        cells = re.findall(r"<t[hd].*?</t[hd]>", row)
        texts = [re.sub("<[^>]*>", " ", cell).split() for cell in cells]
        rows.setdefault(" ".join(texts[0]), []).append([" ".join(t) for t in texts[1:]])
    return rows


def _found(record):
    return Findings(from_record(record))


def test_results_have_every_arm_with_value_interval_and_reading(record):
    rows = _rows(tables.results(EN, _found(record)))
    assert list(rows) == [
        "base untrained model",
        "sft baseline",
        "dft",
        "dft: floor=0.1",
        "staged",
    ]
    assert rows["dft"][0] == [
        f"{split} 0.0 % [0.0, 2.0] ✕ none right"
        for split in (
            "test like the training rows",
            "new_ parts_ and_ stations shifted",
            "new_ phrasings shifted",
        )
    ]
    assert rows["dft: floor=0.1"][0][1].endswith("97.9 % [95.2, 100.0] ▲ better")


def test_every_cell_carries_the_name_of_its_column_for_a_phone(record):
    markup = tables.differences(EN, _found(record), "95")
    for row in re.findall(r"<tr.*?</tr>", markup)[1:]:
        assert row.count('class="of"') == row.count("<td")


def test_no_reading_hangs_on_colour():
    for kind in tables.MARKS:
        said = re.sub("<[^>]*>", "", tables.outcome(EN, kind))
        assert said == f"{tables.MARKS[kind]} {EN(kind)}"
    assert len(set(tables.MARKS.values())) == 4


def test_all_metrics_are_there_in_their_own_units(record):
    rows = _rows(tables.all_metrics(EN, _found(record)))
    assert [len(cells) for cells in rows.values()] == [3, 3, 3]
    assert "nats/token" in rows["NLL"][0][1]
    assert "%" in rows["token accuracy"][0][1]


def test_an_unknown_cost_is_a_dash(record):
    record["arms"][1]["cost"] = None
    rows = _rows(tables.costs(EN, _found(record)))
    assert rows["sft baseline"][0][0] == "Time –"
    assert rows["dft"][0][1] == "Time over baseline –"
