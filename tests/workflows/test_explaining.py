import hashlib
import json
import shutil

import pytest

from mlx_rsft import records
from mlx_rsft.errors import ConfigError, RunError
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import explaining, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import short_run

ROWS = 12


def _data(folder):
    folder.mkdir()
    lines = [
        json.dumps(
            {
                "prompt": f"question {n}",
                "completion": f"answer {n}",
                "id": f"row-{n}",
                "tags": ["even"] if n % 2 == 0 else ["odd", "strange"],
                "weight": 2 if n == 3 else 1,
            }
        )
        for n in range(ROWS)
    ]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _run(place, model, **changes):
    given = {"objective__name": "dft", "training__steps": 6, **changes}
    settings = short_run(model, place / "data", **given)
    train.train(
        train.prepare(settings, place / "run", Silent()), place / "run", Silent()
    )
    return place / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_folder):
    place = tmp_path_factory.mktemp("explained")
    _data(place / "data")
    return _run(place, tiny_folder)


def test_every_step_notes_its_rows_and_they_add_up_to_the_step(run):
    lines = list(records.read_lines(RunDir(run).weights))
    steps = list(records.read_lines(RunDir(run).steps))
    assert [line["step"] for line in lines] == [step["step"] for step in steps]
    for line, step in zip(lines, steps, strict=True):
        tokens = [len(f"answer {n}") + 1 for n in line["rows"]]
        scale = [2 if n == 3 else 1 for n in line["rows"]]
        mean = sum(map(_product, line["weight"], tokens, scale))
        # Four digits are kept of each.
        assert mean == pytest.approx(step["weight"], rel=1e-3)
        p = sum(map(_product, line["p"], tokens, [1] * len(tokens)))
        assert p / step["tokens"] == pytest.approx(step["mean_p"], rel=1e-3)


def _product(a, b, c):
    return a * b * c


def test_rows_are_ranked_by_mean_weight_and_have_their_texts(run):
    found = explaining.explain(run).as_record(most=3)
    assert found["rows"] == ROWS
    most, least = found["most_damped"], found["least_damped"]
    assert [row["rank"] for row in most + least] == [1, 2, 3, ROWS, ROWS - 1, ROWS - 2]
    assert most[0]["mean_weight"] <= found["mean_weight"] <= least[0]["mean_weight"]
    number = most[0]["id"].removeprefix("row-")
    assert most[0]["asked"] == f"question {number}"
    assert most[0]["answer"] == f"answer {number}"


def test_shares_of_the_gradient_add_up_over_tags_that_do_not_overlap(run):
    tags = explaining.explain(run).as_record()["tags"]
    assert tags["even"]["gradient"] + tags["odd"]["gradient"] == pytest.approx(1)
    assert tags["odd"] == tags["strange"]
    assert tags["even"]["rows"] == ROWS / 2


def test_one_row_is_found_by_id_or_place_with_every_visit_and_a_proof(run):
    explained = explaining.explain(run)
    row = explained.one("row-3")
    assert row == explained.one("train.jsonl:4")
    assert row["visits"] == len(row["steps"]) == 2
    proof = row["proof"]
    salted = hashlib.sha256((proof["salt"] + proof["row"]).encode()).hexdigest()
    held = [line["sha256"] for line in records.read_lines(RunDir(run).rows)]
    assert salted == proof["sha256"] == held[3]
    assert len(set(held)) == ROWS
    with pytest.raises(ConfigError, match="row-99"):
        explained.one("row-99")


def test_a_row_that_is_another_now_is_not_shown(run, tmp_path):
    moved = shutil.copytree(run.parent / "data", tmp_path / "data")
    file = moved / "train.jsonl"
    file.write_text(file.read_text().replace("answer 3", "answer three"))
    row = explaining.explain(run, str(moved)).one("train.jsonl:4")
    assert "answer" not in row
    assert "proof" not in row


def test_plain_sft_damps_nothing_and_a_run_without_notes_cannot_be_explained(
    run, tmp_path, tiny_folder
):
    shutil.copytree(run.parent / "data", tmp_path / "data")
    plain = _run(tmp_path, tiny_folder, objective__name="sft")
    assert explaining.explain(plain).as_record()["mean_weight"] == pytest.approx(1)
    (plain / "weights.jsonl").unlink()
    with pytest.raises(RunError, match="Nothing is noted"):
        explaining.explain(plain)


def test_the_run_folder_holds_no_text_of_a_row(run):
    for path in run.rglob("*"):
        assert path.is_dir() or b"answer 3" not in path.read_bytes()
