import json

import pytest

from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError, DataError, Interrupted
from mlx_rsft.evaluation import generate as generation
from mlx_rsft.workflows.answering import Job, answer_file
from mlx_rsft.workflows.generate import generate
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening


def _resolved(model, **more):
    layer = {"model.source": str(model), "evaluation.max_tokens": 6, **more}
    return resolve([Layer("test", layer)])


def _answer(model, asked, out, adapter=None, listener=None, **manner):
    job = Job(asked, out, **manner)
    return answer_file(_resolved(model), adapter, job, listener or Silent())


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "asked.jsonl"
    lines = [{"prompt": f"q {n}", "id": f"n{n}", "tags": ["x"]} for n in range(70)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_file_is_answered_as_each_prompt_alone(
    tmp_path, asked, tiny_folder, tiny_adapter
):
    out = tmp_path / "answers.jsonl"
    record = _answer(tiny_folder, asked, out, tiny_adapter)
    rows = _rows(out)
    assert [row["id"] for row in rows] == [f"n{n}" for n in range(70)]
    assert rows[3]["tags"] == ["x"]
    assert rows[3]["where"] == f"{asked}:4"
    assert rows[3]["messages"] == [{"role": "user", "content": "q 3"}]
    for place in (0, 33, 69):
        alone = generate(_resolved(tiny_folder), tiny_adapter, f"q {place}", Silent())
        assert rows[place]["answer"] == "".join(alone)
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
    assert record["rows"] == 70
    assert record["tokens"] == sum(row["tokens"] for row in rows)
    assert record["cut"] == sum(row["finish_reason"] == "length" for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, asked.name]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_stopped_and_started_again_it_writes_what_it_would_have_written(
    tmp_path, asked, tiny_folder, monkeypatch, temperature
):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    _answer(tiny_folder, asked, whole, temperature=temperature)
    original, calls = generation.at_once, []

    def stopping(*args, **options):
        calls.append(options["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(generation, "at_once", stopping)
    with pytest.raises(Interrupted, match="32 of 70 answers are kept"):
        _answer(tiny_folder, asked, parts, temperature=temperature)
    assert not parts.exists()
    kept = tmp_path / "parts.jsonl.part"
    with kept.open("a") as file:
        file.write('{"answer": "half a li')  # as a power cut leaves it
    listener = Listening()
    _answer(tiny_folder, asked, parts, temperature=temperature, listener=listener)
    assert parts.read_bytes() == whole.read_bytes()
    assert len(calls) == 4  # one whole, one stopped, two to the end
    assert any("32 answers" in note for note in listener.notes)
    assert not kept.exists()


def test_what_was_answered_otherwise_is_not_gone_on_with(
    tmp_path, asked, tiny_folder, tiny_adapter
):
    out, whole = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    part = tmp_path / "a.jsonl.part"
    _answer(tiny_folder, asked, whole, tiny_adapter)
    part.write_text('{"answers_of": "another"}\n' + '{"answer": "old"}\n' * 40)
    _answer(tiny_folder, asked, out, tiny_adapter)
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        _answer(tiny_folder, asked, out)


def test_rows_that_cannot_be_asked_are_named_before_anything_is_written(
    tmp_path, tiny_folder
):
    asked, out = tmp_path / "asked.jsonl", tmp_path / "out" / "a.jsonl"
    asked.write_text('{"prompt": "a"}\n{"prompt": 3.5e99}\n{"nothing": 1}\n')
    with pytest.raises(DataError, match="2 problems"):
        _answer(tiny_folder, asked, out)
    assert not out.parent.exists()
    asked.write_text('{"prompt": "a"}\n')
    with pytest.raises(ConfigError, match="no switch for thinking"):
        _answer(tiny_folder, asked, out, thinking=True)
    assert _answer(tiny_folder, asked, out)["rows"] == 1
