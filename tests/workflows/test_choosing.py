import numpy as np

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import likelihood
from mlx_rsft.models.split import SplitModel
from mlx_rsft.workflows.choosing import ROWS, choose_objective, decide
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening


def _examples(count, tags=()):
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 250, (count, 9)).tolist()
    return [Example(tuple(row), ((4, 9),), "f", tags=tags) for row in rows]


def test_the_figures_are_those_of_the_sampled_rows():
    split, examples = SplitModel(testing.tiny_model()), _examples(20)
    listener = Listening()
    found = choose_objective(split, examples, 0, listener)
    scores = likelihood.score(split, examples)
    tokens = sum(score.tokens for score in scores)
    assert found.overall.rows == 20
    nll = sum(s.nll for s in scores) / tokens
    np.testing.assert_allclose(found.overall.nll, nll, rtol=1e-6)
    np.testing.assert_allclose(
        found.overall.mean_p, sum(s.probability for s in scores) / tokens, rtol=1e-6
    )
    assert found.choice.objective in listener.notes[-1]
    assert found.as_record()["reason"] == found.choice.reason


def test_tags_decide_only_where_every_row_has_one():
    tagged = _examples(10, ("strong",)) + _examples(10, ("weak",))
    logp = [np.full(5, np.log(0.9))] * 10 + [np.full(5, np.log(0.01))] * 10
    assert decide(tagged, logp).choice.objective.endswith("where=strong")
    more = [np.full(5, np.log(0.01))] * 40
    chosen = decide(tagged + _examples(40), logp + more).choice.objective
    assert "where" not in chosen


def test_a_rare_tag_is_sampled_too_and_the_sample_is_bounded():
    split = SplitModel(testing.tiny_model())
    examples = _examples(300, ("common",)) + _examples(5, ("rare",))
    found = choose_objective(split, examples, 0, Silent())
    assert found.by_tag["rare"].rows == 5
    assert found.overall.rows <= 2 * ROWS
