import json

import pytest

from mlx_rsft.data import containers, json_rows
from mlx_rsft.errors import DataError

VALUES = [
    {"number": -12345.678e-12, "long": 123456789012345, "word": True, "none": None},
    {"text": 'quotes " and \\ and \u2028 and \U0001f600', "部品": ["[", "]", "{", ","]},
    {"nested": [[[]], {}, [{"a": [1.5, 2, {"b": []}]}]]},
    {},
]


def _read(path):
    found = []
    try:
        found.extend(containers.read(path))
    except DataError as problem:
        found.append(problem)
    return [str(row) if isinstance(row, DataError) else row for row in found]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 33, 64, 1000])
@pytest.mark.parametrize("indent", [None, 0, 3])
def test_an_array_gives_the_same_rows_in_whatever_pieces_it_is_read(
    tmp_path, monkeypatch, chunk, indent
):
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
    path = tmp_path / "a.json"
    for ascii_only in (True, False):
        text = json.dumps(VALUES * 9, indent=indent, ensure_ascii=ascii_only)
        path.write_text("\n " + text + "\n", encoding="utf-8")
        assert [row.record for row in _read(path)] == VALUES * 9


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_an_array_breaks_at_the_same_place_in_whatever_pieces_it_is_read(
    tmp_path, monkeypatch, chunk
):
    path = tmp_path / "a.json"
    text = json.dumps(VALUES, indent=1, ensure_ascii=False)
    for place in range(0, len(text), 3):
        for spoilt in (text[:place], text[:place] + "\x01" + text[place:]):
            path.write_text(spoilt, encoding="utf-8")
            whole = _read(path)
            with monkeypatch.context() as patch:
                patch.setattr(json_rows, "CHUNK", chunk)
                assert _read(path) == whole


def test_numbers_alone_are_not_cut_between_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "CHUNK", 1)
    path = tmp_path / "a.json"
    path.write_text("[1234.5e67, 1]")
    assert [said.split(": ")[1] for said in _read(path)] == ["item 1", "item 2"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_each_row_of_an_array_knows_its_line_and_number(tmp_path, line_end):
    path = tmp_path / "a.json"
    text = line_end.join(["[", "", "{}, {", "},", "{}", "]"])
    path.write_bytes(text.encode())
    wanted = [(3, 1), (3, 2), (5, 3)]
    assert [row.where for row in _read(path)] == [
        f"{path}:{line}: item {number}" for line, number in wanted
    ]
