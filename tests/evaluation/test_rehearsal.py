import pytest

from mlx_rsft import evaluation, testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation import Sampling, rehearsal

ROWS = [
    Example((1, 2), ((1, 2),), f"f:{n}", answer=answer)
    for n, answer in enumerate(("4", "four"), start=1)
]


def test_a_row_that_cannot_be_judged_is_named_before_the_model_is_touched():
    for metric in ("numeric", "json", "regex:pattern=[0-9]", "avg_at_n:by=numeric"):
        with pytest.raises(DataError, match=r"f:[12]: "):
            evaluation.measure(
                None, testing.byte_tokenizer(), ROWS, evaluation.choose([metric]), 4
            )


def test_too_few_samples_and_missing_choices_are_found_too():
    chosen = evaluation.choose(["pass_at_k:k=3"], Sampling(2))
    with pytest.raises(ConfigError, match="--samples 3"):
        rehearsal.check(ROWS, list(chosen.values()))
    with pytest.raises(DataError, match="f:1: The row has no choices"):
        rehearsal.check(ROWS, list(evaluation.choose(["choices"]).values()))


def test_metrics_that_judge_nothing_need_no_rehearsal():
    cheap = evaluation.choose(["nll", "entropy", "drift_kl", "length_ratio"])
    assert rehearsal.check(ROWS, list(cheap.values())) is None
