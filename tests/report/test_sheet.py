import csv
import io

from mlx_rsft.evaluation.ratings import OURS, THEIRS, Pair
from mlx_rsft.report import sheet

PAIRS = [
    Pair(1, "test", "f:1", "<b>q</b>", "r", "=1+1", 'a "b", c\nd', OURS),
    Pair(2, "test", "f:2", "部品は", "シール", "@x", "-", THEIRS),
]


def test_the_table_comes_back_whole_and_computes_nothing():
    text = sheet.sheet_csv(PAIRS)
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text[1:], newline="")))
    assert tuple(rows[0]) == sheet.COLUMNS
    assert rows[0]["answer_b"] == 'a "b", c\nd'
    assert rows[1]["question"] == "部品は"
    assert [rows[0]["answer_a"], rows[1]["answer_a"]] == ["'=1+1", "'@x"]
    assert {row["better"] for row in rows} == {""}


def test_neither_sheet_tells_who_wrote_what():
    for text in (sheet.sheet_csv(PAIRS), sheet.sheet_page(PAIRS)):
        assert OURS not in text
        assert THEIRS not in text


def test_the_page_escapes_what_models_write_and_loads_nothing():
    html = sheet.sheet_page(PAIRS)
    assert "&lt;b&gt;q&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "default-src 'none'" in html
    assert html.count("<article>") == 2
