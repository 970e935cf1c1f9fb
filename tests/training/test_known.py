import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.objectives.composition import compose
from mlx_rsft.training.known import beforehand

ROWS = [
    Example((1, 2, 7, 9), ((2, 4),), "a", tags=("x",), weight=2.0),
    Example((1, 3, 9), ((1, 3),), "b"),
]


def test_each_token_knows_its_row_and_what_that_weighs():
    known = beforehand(ROWS, [1, 0], compose({}), ())
    assert known.row.tolist() == [1, 1, 0, 0]
    assert known.scale.tolist() == [2, 2, 1, 1]
    assert known.plain is None
    alike = beforehand(ROWS, [1, 0], compose({"normalise": "sequence"}), ())
    np.testing.assert_allclose(np.array(alike.scale), [1, 1, 0.5, 0.5])


def test_kept_tokens_and_other_rows_are_exempt():
    kept = beforehand(ROWS, [0, 1], compose({}), {9})
    assert kept.plain.tolist() == [False, True, False, True]
    where = beforehand(ROWS, [0, 1], compose({"where": "x"}), ())
    assert where.plain.tolist() == [False, False, True, True]
