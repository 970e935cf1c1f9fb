import pytest

from mlx_rsft.data import formats, source
from mlx_rsft.errors import DataError


def _folder(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"prompt": "q{number}", "completion": "{name}"}}\n')
    return folder


def _found(folder):
    splits = source.find_splits(folder)
    return {
        name: [str(path.relative_to(folder)) for path in paths]
        for name, paths in splits.items()
    }


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["train.jsonl", "validation.csv"], {"train": [0], "valid": [1]}),
        (
            ["Train.jsonl", "val.json", "test.tsv"],
            {"train": [0], "valid": [1], "test": [2]},
        ),
        (["dev.jsonl.gz"], {"valid": [0]}),
        (
            ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet"],
            {"train": [1, 0]},
        ),
        (["data/train-2.jsonl", "data/train-10.jsonl"], {"train": [0, 1]}),
        (["train-00000-of-00001-a09b74b3ef9c3b56.parquet"], {"train": [0]}),
        (
            ["test_shifted-00001-of-00002.jsonl", "test_shifted-00000-of-00002.jsonl"],
            {"shifted": [1, 0]},
        ),
        (
            ["test_plant-2.jsonl", "test_plant-3.jsonl"],
            {"plant-2": [0], "plant-3": [1]},
        ),
        (["test_train.jsonl"], {"test_train": [0]}),
        (
            ["valid.csv", "valid_plant.csv", "test_valid_plant.csv"],
            {"valid": [0], "valid_plant": [1], "test_valid_plant": [2]},
        ),
        (["b.txt", "a.md", "README.md", "._a.txt"], {"train": [1, 0]}),
        (["data/train.jsonl", "test.jsonl"], {"train": [0], "test": [1]}),
    ],
)
def test_a_file_belongs_to_the_split_that_its_name_says(tmp_path, names, wanted):
    _folder(tmp_path, *names)
    assert _found(tmp_path) == {
        split: [names[place] for place in places] for split, places in wanted.items()
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train.jsonl", "train.csv"], r"twice: train\.csv, train\.jsonl"),
        (["train.jsonl", "data/train.jsonl"], "twice"),
        (["train.jsonl", "train-00000-of-00001.jsonl"], "twice"),
        (["valid.jsonl", "validation.jsonl"], "twice"),
        (["train-00000-of-00001.jsonl", "train-00000-of-00001.csv"], "twice"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "number 1 is"),
        (["train-00000-of-00001.csv", "train-00001-of-00002.csv"], "not whole"),
        (["notes.pdf", "README.md"], r"no train\.jsonl"),
    ],
)
def test_a_split_that_is_there_twice_or_in_part_is_refused(tmp_path, names, said):
    with pytest.raises(DataError, match=said):
        source.find_splits(_folder(tmp_path, *names))


def test_the_rows_of_a_split_are_those_of_its_files_in_order(tmp_path):
    _folder(tmp_path, "train-00001-of-00002.jsonl", "train-00000-of-00002.jsonl")
    found = source.find_splits(tmp_path)
    paths = source.training_files(found, tmp_path)
    rows = list(formats.split_conversations(paths))
    assert [row.messages[0].content for row in rows] == ["q1", "q0"]
    assert [row.where for row in rows] == [f"{path}:1" for path in paths]


def test_one_shard_by_its_own_name_is_all_there_is(tmp_path):
    _folder(tmp_path, "train-00000-of-00002.jsonl")
    path = tmp_path / "train-00000-of-00002.jsonl"
    assert source.find_splits(path) == {"train": [path]}
