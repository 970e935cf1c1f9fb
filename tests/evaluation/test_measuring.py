import numpy as np
import pytest

from mlx_rsft import evaluation, testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.models.split import SplitModel


def _examples(count=7, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for place in range(count):
        length = int(rng.integers(6, 40))
        tokens = tuple(rng.integers(1, 250, length).tolist())
        made.append(Example(tokens, ((4, length),), f"f:{place + 1}"))
    return made


@pytest.fixture(scope="module")
def measured():
    names = ["nll", "token_accuracy", "exact_match", "generated_exact_match"]
    return evaluation.measure(
        SplitModel(testing.tiny_model()),
        testing.byte_tokenizer(),
        _examples(),
        evaluation.choose(names),
        4,
    )


def test_every_metric_has_one_value_per_row_that_adds_up_to_its_figure(measured):
    assert set(measured.items) == {"exact_match", "generated_exact_match"}
    assert set(measured.totals) == {"nll", "token_accuracy"}
    for name, row_values in measured.items.items():
        assert len(row_values) == 7
        assert np.mean(row_values) == pytest.approx(measured.metrics[name].value)
    for name, (above, below) in measured.totals.items():
        assert len(above) == len(below) == 7
        figure = measured.metrics[name].value
        assert sum(above) / sum(below) == pytest.approx(figure)
