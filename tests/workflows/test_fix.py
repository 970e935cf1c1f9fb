import csv
import json

import pytest

from mlx_rsft import config
from mlx_rsft.errors import DataError
from mlx_rsft.workflows.fix import fix

RECORDS = [
    {"prompt": "a", "completion": " one ", "truth": "one", "id": 7},
    {
        "messages": [
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "two"},
        ]
    },
    {"instruction": "c", "output": "three"},
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


def _table(path, *rows):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["where", "answer", "corrected"])
        table.writerows(rows)
    return path


def _fix(data, table, out):
    done = fix(config.resolve([]), data, table, out)
    return done, [json.loads(line) for line in out.read_text().splitlines()]


def test_corrected_answers_take_the_place_of_the_old_and_all_else_stays(data, tmp_path):
    rows = [
        (f"{data}:1", "one", "uno"),
        (f"{data}:2", "two", "due"),
        (f"{data}:3", "three", ""),
    ]
    done, records = _fix(
        data, _table(tmp_path / "s.csv", *rows), tmp_path / "new.jsonl"
    )
    assert records[0] == {**RECORDS[0], "completion": "uno"}
    assert [turn["content"] for turn in records[1]["messages"]] == ["two", "due"]
    assert records[2] == RECORDS[2]
    assert (done["rows"], done["corrected"], done["dropped"]) == (3, 2, 0)


def test_a_row_can_be_left_out(data, tmp_path):
    table = _table(tmp_path / "s.csv", (f"{data}:3", "three", "drop"))
    done, records = _fix(data, table, tmp_path / "new.jsonl")
    assert records == RECORDS[:2]
    assert (done["corrected"], done["dropped"]) == (0, 1)


@pytest.mark.parametrize(
    ("line", "answer", "said"),
    [(9, "one", "There is no row"), (1, "other", "is not the one in the table")],
)
def test_a_correction_that_fits_no_row_is_refused(data, tmp_path, line, answer, said):
    table = _table(tmp_path / "s.csv", (f"{data}:{line}", answer, "x"))
    with pytest.raises(DataError, match=said):
        fix(config.resolve([]), data, table, tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_a_table_without_corrections_is_refused(data, tmp_path):
    table = _table(tmp_path / "s.csv", (f"{data}:1", "one", " "))
    with pytest.raises(DataError, match="Nothing is corrected"):
        fix(config.resolve([]), data, table, tmp_path / "new.jsonl")


def test_nothing_is_overwritten(data, tmp_path):
    table = _table(tmp_path / "s.csv", (f"{data}:1", "one", "x"))
    with pytest.raises(DataError, match="something already"):
        fix(config.resolve([]), data, table, data)
