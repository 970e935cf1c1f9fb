import re

from mlx_rsft.report import figures
from mlx_rsft.report.comparison import from_record
from mlx_rsft.report.findings import Findings
from mlx_rsft.report.words import Words

EN = Words("en")


def _found(record):
    return Findings(from_record(record))


def _axis(plot, anchor):
    return re.findall(rf'text-anchor="{anchor}" class="faint">([^<]*)<', plot)


def test_plots_side_by_side_share_their_axis(record):
    found = _found(record)
    forests = figures.forests(EN, found)
    assert len({tuple(_axis(plot, "middle")) for plot in forests}) == 1
    curves = figures.curves(EN, found)
    assert len({tuple(_axis(plot, "end")) for plot in curves}) == 1
    histograms = figures.histograms(EN, found)
    assert len({tuple(_axis(plot, "end")) for plot in histograms}) == 1


def test_a_curve_is_the_mean_over_seeds_with_their_span(record):
    shared = {"arm": "sft", "split": "test", "metric": "exact_match"}
    values = [(0, 0, 0.0), (1, 0, 0.0), (0, 10, 0.2), (1, 10, 0.6), (2, 10, None)]
    record["curves"] = [
        shared | {"seed": seed, "step": step, "value": value}
        for seed, step, value in values
    ]
    plot = figures.curves(EN, _found(record))[0]
    assert "sft: from 0.0\N{NO-BREAK SPACE}% at step 0 to 40.0" in plot
    assert 'class="band"' in plot


def test_one_seed_has_no_span(record):
    record["curves"] = [p for p in record["curves"] if p["seed"] == 0]
    assert not any('class="band"' in p for p in figures.curves(EN, _found(record)))


def test_the_sides_change_places_where_less_is_better(record):
    for item in record["differences"]:
        item["better"] = "lower"
    plot = figures.forests(EN, _found(record))[0]
    assert "← arm better" in plot
    assert "baseline better →" in plot


def test_the_deciding_metric_is_drawn_first_and_plots_are_not_without_end(record):
    more = [p | {"metric": f"a{n}"} for p in record["curves"][:1] for n in range(20)]
    record["curves"] = more + record["curves"]
    plots = figures.curves(EN, _found(record))
    assert len(plots) == figures.MOST_CURVES
    assert "exact match" in plots[0]


def test_an_arm_has_the_same_look_in_every_plot(record):
    found = _found(record)
    number = figures.numbers(found)["dft:floor=0.1"]
    assert f'class="key s{number}"' in figures.legend(
        found, list(figures.numbers(found))
    )
    histogram = figures.histograms(EN, found)[2]
    assert "dft:<wbr>floor" in histogram
    assert f'<g class="s{number}">' in histogram
