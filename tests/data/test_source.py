import pytest

from mlx_rsft.data import source
from mlx_rsft.errors import DataError


def _read(path):
    return list(source.read(path))


def test_splits_are_named_by_their_files(tmp_path):
    for name in ("train", "valid", "test", "test_shifted", "test_new_parts", "notes"):
        (tmp_path / f"{name}.jsonl").write_text("{}")
    assert set(source.find_splits(tmp_path)) == {
        "train",
        "valid",
        "test",
        "shifted",
        "new_parts",
    }


def test_one_file_is_a_split_of_its_own_and_can_be_trained_on(tmp_path):
    path = tmp_path / "test_mine.jsonl"
    path.write_text("{}")
    found = source.find_splits(path)
    assert found == {"mine": [path]}
    assert source.training_files(found, path) == [path]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        source.find_splits(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no train\.jsonl"):
        source.find_splits(tmp_path)
    (tmp_path / "test.jsonl").write_text("{}")
    with pytest.raises(DataError, match="no split 'train'"):
        source.training_files(source.find_splits(tmp_path), tmp_path)


def test_rows_know_their_line_and_blank_lines_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}')
    assert [row.where for row in _read(path)] == [f"{path}:1", f"{path}:4"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": 1', "Not valid JSON"),
        ("[1, 2]", "found list"),
        ("17", "found int"),
        ("[" * 100_000, "Nested too deeply|Not valid JSON"),
    ],
)
def test_a_line_that_is_no_object_is_named_and_the_others_are_read(
    tmp_path, line, said
):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 16 + line + '\n{"a": 2}\n')
    rows = _read(path)
    assert len(rows) == 18
    assert isinstance(rows[16], DataError)
    assert rows[16].where == f"{path}:17"
    with pytest.raises(DataError, match=said):
        raise rows[16]


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="no rows"):
        _read(path)


def test_other_encodings_are_refused_by_name(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "Öl"}'.encode("cp1252"))
    (row,) = _read(path)
    assert "Not valid UTF-8: byte 0xd6 at column 8" in str(row)
    assert '\'{"a": "Öl"}\' with --encoding cp1252' in str(row)
