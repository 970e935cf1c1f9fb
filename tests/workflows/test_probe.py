import numpy as np

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import likelihood
from mlx_rsft.models.split import SplitModel
from mlx_rsft.workflows.probe import ROWS, probe
from mlx_rsft.workflows.reporter import Silent


class Listening(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def _examples(count, tags=()):
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 250, (count, 9)).tolist()
    return [Example(tuple(row), ((4, 9),), "f", tags=tags) for row in rows]


def test_the_figures_are_those_of_the_sampled_rows():
    split, examples = SplitModel(testing.tiny_model()), _examples(20)
    listener = Listening()
    found = probe(split, examples, 0, listener)
    scores = likelihood.score(split, examples)
    tokens = sum(score.tokens for score in scores)
    assert found.overall.rows == 20
    np.testing.assert_allclose(found.overall.nll, sum(s.nll for s in scores) / tokens)
    np.testing.assert_allclose(
        found.overall.mean_p, sum(s.probability for s in scores) / tokens
    )
    assert found.choice.objective in listener.notes[-1]
    assert found.as_record()["reason"] == found.choice.reason


def test_tags_decide_only_where_every_row_has_one(monkeypatch):
    split = SplitModel(testing.tiny_model())

    def by_tag(_split, sample, _report):
        return [_score(0.9 if "strong" in e.tags else 0.01) for e in sample]

    monkeypatch.setattr(likelihood, "score", by_tag)
    tagged = _examples(10, ("strong",)) + _examples(10, ("weak",))
    chosen = probe(split, tagged, 0, Silent()).choice.objective
    assert chosen.endswith("where=strong")
    chosen = probe(split, tagged + _examples(40), 0, Silent()).choice.objective
    assert "where" not in chosen


def _score(p):
    return likelihood.RowScore(5.0, 5 * p, 5, 0, exact=False)


def test_a_rare_tag_is_sampled_too_and_the_sample_is_bounded():
    split = SplitModel(testing.tiny_model())
    examples = _examples(300, ("common",)) + _examples(5, ("rare",))
    found = probe(split, examples, 0, Silent())
    assert found.by_tag["rare"].rows == 5
    assert found.overall.rows <= 2 * ROWS
