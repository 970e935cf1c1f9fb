from mlx_rsft import evaluation, testing
from mlx_rsft.data import formats
from mlx_rsft.evaluation import general
from mlx_rsft.models.split import SplitModel


def test_every_question_has_four_choices_one_of_them_right():
    rows = formats.read_conversations(general.FILE)
    assert len(rows) >= 40
    assert len({row.messages[0].content for row in rows}) == len(rows)
    for row in rows:
        assert len(set(row.choices)) == len(row.choices) == 4
        assert row.messages[-1].content in row.choices
    assert len({tag for row in rows for tag in row.tags}) >= 8


def test_right_answers_do_not_always_stand_in_the_same_place():
    rows = formats.read_conversations(general.FILE)
    places = [row.choices.index(row.messages[-1].content) for row in rows]
    assert {places.count(n) >= 8 for n in range(4)} == {True}


def test_metrics_that_fit_are_kept_and_the_choices_always_asked_for():
    names = "nll,entropy,drift_kl,choices:of=a|b,numeric,avg_at_n"
    kept = general.fitting(evaluation.choose([names]))
    assert list(kept) == ["nll", "entropy", "drift_kl", "choices"]


def test_it_is_measured_like_any_split_and_by_language():
    tokenizer = testing.byte_tokenizer()
    measured = evaluation.measure(
        SplitModel(testing.tiny_model()),
        tokenizer,
        general.examples(tokenizer),
        evaluation.choose(["nll", "choices"]),
        4,
    )
    assert 0 <= measured.metrics["choices"].value <= 1
    assert measured.tags["ja"].rows == 4
    by_tag = measured.as_record()["tags"]
    assert sum(part["rows"] for part in by_tag.values()) == measured.record.rows
    together = sum(p["tokens"] * p["metrics"]["nll"]["value"] for p in by_tag.values())
    figure = measured.metrics["nll"].value
    assert abs(together / measured.record.tokens - figure) < 1e-6
