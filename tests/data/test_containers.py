import gzip
import json

import pytest

from mlx_rsft.data import containers, source
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import ConfigError, DataError

ROWS = [
    {"prompt": "Größe?", "completion": "12 mm"},
    {"prompt": "部品", "completion": "a"},
]


def _lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _table(rows, separator, end="\r\n"):
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    return end.join(separator.join(f'"{c}"' for c in row) for row in cells) + end


def _records(path, **options):
    found = list(source.read(path, **options))
    assert all(isinstance(row, Row) for row in found), found
    return [dict(row.record) for row in found]


def _parquet(path, rows):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", _lines(ROWS).encode()),
        ("a.jsonl.gz", gzip.compress(_lines(ROWS).encode())),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("a.csv", _table(ROWS, ",").encode()),
        ("a.CSV", _table(ROWS, ";").encode("utf-8-sig")),
        ("a.csv", _table(ROWS, ";").encode("utf-16")),
        ("a.tsv", _table(ROWS, "\t", "\n").encode()),
        ("a.csv.gz", gzip.compress(_table(ROWS, ";").encode())),
        ("a.jsonl", _lines(ROWS).encode("utf-16")),
        ("a.ndjson", _lines(ROWS).encode("utf-16-le")),
        ("a.json", _lines(ROWS).encode()),
        ("a.jsonl", json.dumps(ROWS, indent=2).encode("utf-32")),
        ("a.txt", _lines(ROWS).encode()),
    ],
)
def test_every_container_gives_the_same_rows(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert _records(path) == ROWS


def test_parquet_gives_the_same_rows(tmp_path):
    _parquet(tmp_path / "a.parquet", ROWS)
    assert _records(tmp_path / "a.parquet") == ROWS


def test_every_container_is_exercised_here():
    exercised = {
        ".jsonl",
        ".ndjson",
        ".json",
        ".csv",
        ".tsv",
        ".parquet",
        *containers.TEXTS,
    }
    assert set(containers.CONTAINERS) == exercised


def test_a_named_encoding_is_used(tmp_path):
    path = tmp_path / "a.csv"
    rows = [{"prompt": "部品", "completion": "交換"}]
    path.write_bytes(_table(rows, ",").encode("shift_jis"))
    assert _records(path, encoding="shift_jis") == rows
    (broken,) = source.read(path)
    assert "Not valid UTF-8" in str(broken)
    assert "'部品" in str(broken)
    assert "--encoding cp932" in str(broken)
    with pytest.raises(ConfigError, match="no encoding 'klingon'"):
        list(source.read(path, encoding="klingon"))


def test_columns_go_by_the_names_the_user_gives(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question;answer\nq;a\n")
    columns = source.parse_columns(["question=prompt", "answer=completion"])
    assert _records(path, columns=columns) == [{"prompt": "q", "completion": "a"}]
    path.write_text("question;answer\nq;a\nq;a\n")
    with pytest.raises(DataError, match=r"no column 'questio'.*mean 'question'"):
        list(source.read(path, {"questio": "prompt"}))
    with pytest.raises(DataError, match="a column 'answer' already"):
        list(source.read(path, {"question": "answer"}))
    swapped = source.read(path, {"question": "answer", "answer": "question"})
    assert [dict(row.record) for row in swapped] == [
        {"answer": "q", "question": "a"}
    ] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [(["question"], "nothing"), (["a=b", "a=c"], "second"), (["a=c", "b=c"], "second")],
)
def test_a_renaming_that_is_none_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        source.parse_columns(given)


def test_a_quoted_cell_may_hold_separators_and_line_breaks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,completion\r\n"a, b\r\nc","d ""e"""\r\nx,y\r\n')
    assert _records(path) == [
        {"prompt": "a, b\r\nc", "completion": 'd "e"'},
        {"prompt": "x", "completion": "y"},
    ]


def test_a_row_of_a_table_with_too_few_cells_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\nq,a\nq\n\nq,a\n")
    rows = list(source.read(path))
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:3", f"{path}:5"]
    assert isinstance(rows[1], DataError)
    assert "1 cells" in str(rows[1])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'{\n"prompt": "q"}', r"a\.json:1.*JSON array"),
        ("a.json", b'[{"a": 1},\n{"a": }]', "a.json:2"),
        ("a.json", b"[]", "no rows"),
        ("a.json", b"[" * 100_000, "Nested|Not valid"),
        ("a.json", b"[1]", "found int"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"prompt,completion\n", "no rows"),
        ("a.csv", b'prompt,completion\n"open,a\n', "Not a valid table|cells"),
        ("a.jsonl.gz", b"not gzip at all", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999)[:40], "cannot be read"),
        ("a.parquet", b"PAR1 but no more", "Parquet"),
        ("a.jsonl", b'{"a": "\xff\xfe"}', "Not valid UTF-8"),
        ("a.jsonl", b'\xff\xfe{"a": 1}', "Not valid JSON"),
    ],
)
def test_a_broken_file_is_a_named_error(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)

    def read():
        for row in source.read(path):
            if isinstance(row, DataError):
                raise row

    with pytest.raises(DataError, match=said) as caught:
        read()
    assert name in str(caught.value)


def test_a_folder_takes_any_container_and_refuses_a_split_that_is_there_twice(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,completion\nq,a\n")
    (tmp_path / "test_far.jsonl.gz").write_bytes(gzip.compress(_lines(ROWS).encode()))
    (tmp_path / "notes.txt").write_text("x")
    assert set(source.find_splits(tmp_path)) == {"train", "far"}
    (tmp_path / "train.jsonl").write_text(_lines(ROWS))
    with pytest.raises(DataError, match="there twice"):
        source.find_splits(tmp_path)
