import sys

import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation import choose, user

ROW = Example((1, 2), ((1, 2),), "f.jsonl:3", answer="seal", tags=("night",))
MODULE = """
def share(answer, row):
    return len(answer) / len(row.answer) + ("night" in row.tags)

def broken(answer, row):
    return {}["missing"]

def wordy(answer, row):
    return "good"

def endless(answer, row):
    return float("nan")

value = 3
"""


@pytest.fixture
def _own_module(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    sys.modules.pop("own_metrics", None)
    assert sys.path == before


@pytest.mark.usefixtures("_own_module")
def test_a_function_of_ones_own_sees_the_answer_and_its_row():
    assert user.load("own_metrics:share")("se", ROW) == 1.5
    assert list(choose(["nll,own_metrics:share"])) == ["nll", "own_metrics:share"]


@pytest.mark.usefixtures("_own_module")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "own_metrics:broken raised KeyError: 'missing'"),
        ("wordy", "returned 'good', expected a finite number"),
        ("endless", "returned nan"),
    ],
)
def test_what_goes_wrong_in_it_is_said_with_the_row(name, said):
    with pytest.raises(DataError) as caught:
        user.load(f"own_metrics:{name}")("se", ROW)
    assert str(caught.value).startswith("f.jsonl:3: ")
    assert said in str(caught.value)


@pytest.mark.usefixtures("_own_module")
def test_a_name_that_is_no_function_is_refused():
    with pytest.raises(ConfigError, match="no function 'value'"):
        user.load("own_metrics:value")
    with pytest.raises(ConfigError, match="not of the form"):
        user.load("own_metrics")
