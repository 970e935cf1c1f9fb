import pytest

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import METRICS, Sampling, choose


def test_commas_part_metrics_parameters_and_values_alike():
    text = (
        r"nll,numeric:tolerance=0.1,take=first,regex:pattern=a{1,2}b,group=0,contains"
    )
    wanted = [
        "nll",
        "numeric:tolerance=0.1,take=first",
        "regex:pattern=a{1,2}b,group=0",
        "contains",
    ]
    assert list(choose([text])) == wanted
    assert list(choose(text.split(","))) == wanted
    assert choose([text])["regex:pattern=a{1,2}b,group=0"].given == {
        "pattern": "a{1,2}b",
        "group": "0",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("perplexty", "There is no metric 'perplexty'. Did you mean 'perplexity'"),
        ("numeric:tol=1", "metric 'numeric:tol=1': There is no parameter 'tol'"),
        ("numeric:tolerance=a", "tolerance = 'a': expected a number"),
        ("numeric:tolerance=nan", "tolerance = 'nan': expected a number"),
        ("numeric:tolerance", "'tolerance' is not a parameter"),
        ("numeric:tolerance=1,tolerance=2", "given twice"),
        ("numeric:take=middle", "take = 'middle'"),
        ("regex", "The parameter 'pattern' is missing"),
        ("nll:k=1", "It takes none"),
        ("pass_at_k:k=1.5", "expected a whole number"),
        ("pass_at_k:k=0", "at least 1"),
        ("avg_at_n:by=exactly", "Did you mean 'exact'"),
        ("avg_at_n:by=numeric,tol=1", "There is no parameter 'tol'"),
        ("avg_at_n:tolerance=1", "It takes none"),
        ("regex:pattern=(yes,no)x,none", "There is no metric 'none'"),
        ("nowhere_at_all:f", "nowhere_at_all cannot be imported"),
        ("json:f", "'f' is not a parameter"),
        ("math:nothing", "math has no function 'nothing'"),
    ],
)
def test_what_is_wrong_with_a_spelling_is_said(text, said):
    with pytest.raises(ConfigError) as caught:
        choose([text])
    assert said in str(caught.value)


def test_a_judge_of_samples_takes_its_own_parameters():
    (gauge,) = choose(["avg_at_n:by=numeric,tolerance=1"], Sampling(4)).values()
    assert gauge.sampling == Sampling(4)
    assert gauge.better == "higher"


def test_only_metrics_of_samples_are_told_how_to_sample():
    chosen = choose(["nll", "distinct_answers"], Sampling(3))
    assert chosen["nll"].sampling is None
    assert chosen["distinct_answers"].sampling == Sampling(3)


def test_json_stands_for_every_field_of_the_rows_too():
    rows = [
        Example((1, 2), ((1, 2),), "f", answer=answer)
        for answer in ('{"part": 1}', '{"action": 2, "part": 3}')
    ]
    (gauge,) = choose(["json"]).values()
    names = [one.name for one in gauge.spread(rows)]
    assert names == ["json", "json:field=part", "json:field=action"]
    (single,) = choose(["json:field=part"]).values()
    assert [one.name for one in single.spread(rows)] == ["json:field=part"]


def test_every_metric_of_the_table_is_explained():
    assert all(entry.about and entry.unit for entry in METRICS.values())
