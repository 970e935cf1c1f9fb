import datetime
import decimal

import pyarrow
import pytest
from pyarrow import parquet as writer

from mlx_rsft.data import containers, formats
from mlx_rsft.errors import DataError


def _write(path, columns):
    writer.write_table(pyarrow.table(columns), path)
    return path


def test_a_column_of_structures_is_a_conversation_without_what_others_have(tmp_path):
    call = {"function": {"name": "f", "arguments": "{}"}}
    turns = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [call], "weight": 1},
        ],
    ]
    path = _write(tmp_path / "a.parquet", {"messages": turns})
    plain, called = formats.read_conversations(path)
    assert [m.as_template() for m in plain.messages] == turns[0]
    assert called.messages[1].content == ""
    first, second = containers.read(path)
    assert first.record["messages"] == turns[0]
    assert second.record["messages"] == turns[1]


def test_values_that_json_does_not_have_become_those_it_has(tmp_path):
    day = datetime.datetime(2026, 11, 22, 7, 30)
    columns = {
        "decimal": [decimal.Decimal("12.50"), decimal.Decimal("3.00")],
        "day": [day, None],
        "nan": [float("nan"), 1.5],
        "binary": [b"abc", "Öl".encode()],
        "map": pyarrow.array(
            [[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())
        ),
    }
    first, second = containers.read(_write(tmp_path / "a.parquet", columns))
    assert dict(first.record) == {
        "decimal": 12.5,
        "day": "2026-11-22 07:30:00",
        "nan": None,
        "binary": "abc",
        "map": {"k": 1},
    }
    assert dict(second.record) == {
        "decimal": 3,
        "day": None,
        "nan": 1.5,
        "binary": "Öl",
        "map": {},
    }


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path):
    columns = {"text": [b"\xff", b"fine"]}
    bad, good = containers.read(_write(tmp_path / "a.parquet", columns))
    assert isinstance(bad, DataError)
    assert bad.where.endswith("a.parquet: row 1")
    assert good.record == {"text": "fine"}


def test_a_row_may_leave_the_columns_of_other_formats_empty(tmp_path):
    columns = {"prompt": ["q", None], "completion": ["a", None], "text": [None, "t"]}
    pair, text = formats.read_conversations(_write(tmp_path / "a.parquet", columns))
    assert (len(pair.messages), text.text) == (2, "t")


@pytest.mark.parametrize("place", [4, 40, -20, -9])
def test_a_spoilt_file_is_an_error_by_name(tmp_path, place):
    rows = {"text": [f"row {n}" for n in range(999)]}
    path = _write(tmp_path / "a.parquet", rows)
    content = bytearray(path.read_bytes())
    content[place : place + 8 or None] = b"\xff" * 8
    path.write_bytes(content)
    (*_, last) = formats.conversations(path)
    assert isinstance(last, DataError)
    assert "Parquet" in str(last)
