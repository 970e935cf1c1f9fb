import csv
import io
import json
from collections import Counter

from mlx_rsft.report import flat
from mlx_rsft.report.comparison import from_record


def test_every_kind_of_figure_has_its_rows(record):
    rows = flat.figures(from_record(record))
    count = Counter(row["figure"] for row in rows)
    assert count == {
        "score": 5 * 3 * 3,
        "difference": 9,
        "curve": 4 * 3 * 3 * 6,
        "histogram": 4 * 20,
        "weight": 4 * 3,
        "side_effect": 5 * 2,
        "cost": 4 * 4,
    }


def test_the_table_holds_what_the_document_holds(record):
    found = from_record(record)
    rows = flat.figures(found)
    assert {key for row in rows for key in row} <= set(flat.COLUMNS)
    text = flat.as_csv(rows)
    read = list(csv.DictReader(io.StringIO(text.removeprefix(flat.MARK))))
    for row, line in zip(rows, read, strict=True):
        for key, value in row.items():
            assert line[key] == ("" if value is None else str(value))
    assert flat.as_record(found)["figures"] == rows


def test_a_histograms_bins_lie_side_by_side_from_0_to_1(record):
    rows = flat.figures(from_record(record))
    bins = [r for r in rows if r["figure"] == "histogram" and r["arm"] == "sft"]
    edges = [row["low"] for row in bins] + [bins[-1]["high"]]
    assert edges == [n / 20 for n in range(21)]


def test_the_document_says_what_failed_and_is_standard_json(record):
    found = flat.as_record(from_record(record))
    assert found["zero"] == {
        "dft": ["test", "new_parts_and_stations", "new_phrasings"],
    }
    assert found["without_gain"] == ["test", "new_phrasings"]
    json.dumps(found, allow_nan=False)


def test_no_text_of_a_table_is_a_formula(record):
    record["arms"][0]["name"] = '=HYPERLINK("http://x")'
    text = flat.as_csv(flat.figures(from_record(record)))
    cells = {cell for line in csv.reader(io.StringIO(text)) for cell in line}
    assert '\'=HYPERLINK("http://x")' in cells
    assert not any(cell.startswith("=") for cell in cells)
    assert text.startswith(flat.MARK)


def test_the_least_of_a_record_has_figures_too(bare_record):
    rows = flat.figures(from_record(bare_record))
    assert [row["figure"] for row in rows] == ["score"]
