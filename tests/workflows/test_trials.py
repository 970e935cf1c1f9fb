"""What a search tries: its rungs, its grid and its learning rates."""

import pytest

from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows.trials import Rung, grid, read_rates, rungs


@pytest.mark.parametrize(
    ("trials", "steps", "eta", "wanted"),
    [
        (27, 270, 3, [(27, 10), (9, 30), (3, 90), (1, 270)]),
        (27, 60, 3, [(27, 7), (9, 20), (3, 60)]),
        (9, 4, 3, [(9, 4)]),
        (1, 100, 3, [(1, 100)]),
        (5, 100, 2, [(5, 25), (2, 50), (1, 100)]),
    ],
)
def test_rungs_lead_to_the_full_length_and_none_is_too_short(
    trials, steps, eta, wanted
):
    assert rungs(trials, steps, eta) == [Rung(*pair) for pair in wanted]


def test_a_grid_is_the_same_in_any_order_and_a_draw_from_it_is_the_seeds():
    whole = grid(["a", "b"], [1.0, 2.0, 3.0], 0, 0)
    assert whole == grid(["b", "a"], [3.0, 1.0, 2.0], 0, 7)
    assert len(whole) == 6
    drawn = {tuple(grid(["a", "b"], [1.0, 2.0, 3.0], 2, seed)) for seed in range(20)}
    assert len(drawn) > 5
    assert all(len(set(some)) == 2 and set(some) <= set(whole) for some in drawn)


def test_learning_rates_are_numbers_above_nothing():
    assert read_rates("1e-4, 3e-4") == (1e-4, 3e-4)
    with pytest.raises(ConfigError, match="2 problems"):
        read_rates("1e-4,fast,-1")
