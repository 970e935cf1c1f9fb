import numpy as np

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import likelihood, tokenwise
from mlx_rsft.models.split import SplitModel


def _rows():
    rng = np.random.default_rng(0)
    rows = [tuple(rng.integers(1, 250, n).tolist()) for n in (9, 30, 5, 17)]
    return [Example(row, ((2, 4), (4, len(row))), "f") for row in rows]


def test_tokens_come_in_the_order_of_the_rows_and_add_up_to_their_scores():
    split, rows = SplitModel(testing.tiny_model()), _rows()
    logp = np.array(tokenwise.read(split, rows).logp)
    ends = np.cumsum([row.num_supervised for row in rows])[:-1]
    sums = [-part.sum() for part in np.split(logp, ends)]
    scores = [row.nll for row in likelihood.score(split, rows)]
    np.testing.assert_allclose(sums, scores, rtol=1e-5)  # float32 sums


def test_only_what_is_asked_for_is_there():
    split, rows = SplitModel(testing.tiny_model()), _rows()
    stats = tokenwise.read(split, rows, ["collision"])
    assert stats.entropy is None
    assert stats.collision.size == stats.logp.size
    assert (np.array(stats.collision) >= np.array(stats.p) ** 2 - 1e-6).all()
