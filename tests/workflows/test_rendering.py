"""No text is longer than the model was made for, whichever way it comes in."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_rsft import config, testing
from mlx_rsft.errors import DataError, ModelError
from mlx_rsft.workflows import answering, check, evaluate, generate, train
from mlx_rsft.workflows.reporter import Silent

WINDOW = 48


@pytest.fixture
def windowed(tmp_path):
    """A Gemma 2, whose sliding window mlx-lm leaves out."""
    from mlx_lm.models import gemma2

    folder = testing.write_tiny_model(tmp_path / "model")
    told = testing.tiny_config(
        model_type="gemma2",
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=512,
        sliding_window=WINDOW,
    )
    model = gemma2.Model(gemma2.ModelArgs.from_dict(told))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def rows(tmp_path):
    """One row within the window, and one beyond it."""
    path = tmp_path / "rows.jsonl"
    texts = ["short " * 4, "far longer " * 9]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _settings(model, data="", **given):
    values = {"model.source": str(model), "data.source": str(data)}
    values |= {name.replace("__", "."): value for name, value in given.items()}
    return config.resolve([config.Layer(config.FLAG, values)])


def test_a_row_beyond_the_window_is_refused_and_may_be_left_out(
    windowed, rows, tmp_path
):
    settings = _settings(windowed, rows, data__max_length=400)
    long = f"rows.jsonl:2.*more than the {WINDOW} allowed"
    with pytest.raises(DataError, match=long):
        train.prepare(settings, tmp_path / "run", Silent())
    with pytest.raises(DataError, match=long):
        evaluate.evaluate(settings, None, Silent())
    (finding,) = check.check(settings, rows, Silent())["findings"]
    assert f"the {WINDOW} allowed" in finding["message"]
    settings = _settings(
        windowed,
        rows,
        data__overlong="drop",
        objective__name="sft",
        adapter__layers="all",
    )
    job = train.prepare(settings, tmp_path / "run", Silent())
    assert [len(row.tokens) <= WINDOW for row in job.splits.rows["train"]] == [True]


def test_a_prompt_beyond_the_window_is_refused_and_an_answer_ends_at_it(
    windowed, rows, tmp_path
):
    settings = _settings(windowed, evaluation__max_tokens=400)
    with pytest.raises(ModelError, match=f"writes at most {WINDOW}"):
        generate.generate(settings, None, "far longer " * 9, Silent())
    job = answering.Job(rows, tmp_path / "answers.jsonl")
    with pytest.raises(DataError, match=rf"rows.jsonl:2.*at most {WINDOW}"):
        answering.answer_file(settings, None, job, Silent())
    room = []

    def stream(*given, max_tokens, **options):
        room.append((len(given[2]), max_tokens))
        return iter(())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generate.generation, "stream", stream)
        generate.generate(settings, None, "Hi", Silent())
    assert [asked + left for asked, left in room] == [WINDOW]
