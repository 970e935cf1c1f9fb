import json

import pytest

from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.split import split

ROWS = [
    {"prompt": f"q {n}", "completion": "ä", "tags": ["ab"[n % 2]], "site": n % 7}
    for n in range(140)
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


def _split(file, out, shares=None, settings=None, **options):
    shares = shares or {"valid": 0.2, "test": 0.2}
    resolved = resolve([Layer("test", settings or {})])
    return split(resolved, file, out, Silent(), shares=shares, **options)


def _read(out):
    return {
        path.name: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in out.iterdir()
    }


def test_every_row_is_written_once_as_it_was(file, tmp_path):
    told = _split(file, tmp_path / "out")
    written = _read(tmp_path / "out")
    rows = [row for split in written.values() for row in split]
    assert sorted(rows, key=ROWS.index) == ROWS
    assert {name: len(rows) for name, rows in written.items()} == {
        "train.jsonl": 84,
        "valid.jsonl": 28,
        "test.jsonl": 28,
    }
    assert told["splits"]["train.jsonl"]["tags"] == {"a": 42, "b": 42}


def test_groups_and_held_out_tags_reach_the_files(file, tmp_path):
    _split(file, tmp_path / "out", held_out=["b"])
    held_out = _read(tmp_path / "out")["test_b.jsonl"]
    assert held_out == [row for row in ROWS if row["tags"] == ["b"]]
    _split(file, tmp_path / "sites", group="site")
    sites = [{r["site"] for r in rows} for rows in _read(tmp_path / "sites").values()]
    assert sum(map(len, sites)) == 7


def test_columns_keep_their_new_names(tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text("q,a\n" + "".join(f"q{n},a{n}\n" for n in range(20)))
    _split(file, tmp_path / "out", settings={"data.map": "q=prompt,a=completion"})
    row = _read(tmp_path / "out")["train.jsonl"][0]
    assert set(row) == {"prompt", "completion"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shares": {"valid": 0.5, "test": 0.5}}, "no rows to train on"),
        ({"shares": {"valid": 0.001, "test": 0.2}}, "'valid' would be empty"),
        ({"held_out": ["c"]}, "No row has the tag 'c'"),
        ({"group": "cite"}, "Did you mean 'site'"),
    ],
)
def test_what_cannot_be_done_is_named_and_nothing_written(
    file, tmp_path, options, said
):
    with pytest.raises((ConfigError, DataError), match=said):
        _split(file, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(file, tmp_path):
    with pytest.raises(DataError, match="something already"):
        _split(file, tmp_path)


def test_rows_that_cannot_be_trained_are_named_together(file, tmp_path):
    file.write_text('{"prompt": "q", "completion": ""}\n{"x\n')
    with pytest.raises(DataError, match=r"2 problems[\s\S]*:1:[\s\S]*:2:"):
        _split(file, tmp_path / "out")
