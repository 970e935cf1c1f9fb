import pytest

from mlx_rsft.report.comparison import Difference, from_record
from mlx_rsft.report.typed import Mistyped


def _outcome(low, high, p=0.001, adjusted=0.01, better="higher"):
    middle = (low + high) / 2
    shared = {"p_value": p, "p_adjusted": adjusted, "better": better}
    found = Difference("s", "m", "a", "b", middle, low, high, **shared)
    return found.outcome(0.05)


def test_a_difference_is_shown_only_where_interval_and_corrected_p_say_so():
    assert _outcome(0.1, 0.3) == "better"
    assert _outcome(-0.3, -0.1) == "worse"
    assert _outcome(-0.1, 0.3) == "unclear"
    assert _outcome(0.0, 0.3) == "unclear"
    assert _outcome(0.1, 0.3, adjusted=0.2) == "unclear"
    assert _outcome(0.1, 0.3, p=0.2, adjusted=None) == "unclear"
    assert _outcome(0.1, 0.3, p=None, adjusted=None) == "better"


def test_less_can_be_better_and_some_metrics_can_only_change():
    assert _outcome(0.1, 0.3, better="lower") == "worse"
    assert _outcome(-0.3, -0.1, better="lower") == "better"
    assert _outcome(0.1, 0.3, better="neither") == "changed"


def test_the_least_of_a_record_is_enough(bare_record):
    found = from_record(bare_record)
    assert found.curves == ()
    assert found.arms[0].score("test", "m") is None


@pytest.mark.parametrize("key", ["arms", "differences", "verdict", "reason"])
def test_a_record_without_a_required_part_is_refused(record, key):
    del record[key]
    with pytest.raises(Mistyped, match=f"{key} is missing"):
        from_record(record)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(arms=[]), "arms is empty"),
        (lambda r: r["arms"].append(r["arms"][0]), "arms has 'base' twice"),
        (lambda r: r.update(level=5), "level is 5, expected to lie between"),
        (lambda r: r["histograms"]["after"]["sft"].pop(), "has 19 bins, expected 20"),
        (lambda r: r["histograms"]["before"].__setitem__(0, -1), "negative count"),
        (
            lambda r: r["arms"][1]["splits"].update(test=3),
            r"arms\[1\].splits\['test'\]",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(record, change, said):
    change(record)
    with pytest.raises(Mistyped, match=said):
        from_record(record)
