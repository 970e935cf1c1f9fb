import re
from xml.etree import ElementTree

import pytest

from mlx_rsft.report import svg
from mlx_rsft.report.drawing import WIDTH, Caption

CAPTION = Caption("plot-1", "A <title>", "What it says & more")


def _interval(name, low, high, outcome="unclear"):
    middle = (low + high) / 2
    return svg.Interval(name, f"{middle:+.1f}", middle, low, high, outcome)


def _forest(*rows):
    return svg.forest(CAPTION, rows, (-1.0, 3.0), ("bad", "good"), "{:g}".format)


PLOTS = {
    "curves": svg.curves(
        CAPTION,
        [
            svg.Line(0, [(0, 0.0), (10, 0.5)], [(0, 0.0, 0.0), (10, 0.4, 0.6)]),
            svg.Line(1, [(0, 0.0), (10, 0.2)]),
        ],
        (0.0, 0.6),
        "step",
        "{:g}".format,
    ),
    "forest": _forest(_interval("one", -0.5, 1.5), _interval("two", 1, 3, "better")),
    "histograms": svg.histograms(CAPTION, [0.5, 0.5], [0.1, 0.9], 2, 0.9, "p"),
    "bars": svg.bars(
        CAPTION, [svg.Bar(0, "a", 0.5, "0.5"), svg.Bar(1, "b", None, "–")], 1.0
    ),
}


def _parsed(text):
    return ElementTree.fromstring(text)


@pytest.mark.parametrize("kind", PLOTS)
def test_a_plot_is_an_image_with_a_title_and_a_description(kind):
    root = _parsed(PLOTS[kind])
    assert root.get("role") == "img"
    by_id = {node.get("id"): node.text for node in root.iter() if node.get("id")}
    assert by_id[root.get("aria-labelledby")] == "A <title>"
    assert by_id[root.get("aria-describedby")] == "What it says & more"


@pytest.mark.parametrize("kind", PLOTS)
def test_text_is_text_and_colours_are_the_pages(kind):
    root = _parsed(PLOTS[kind])
    assert list(root.iter("text"))
    for node in root.iter():
        assert "fill" not in node.attrib
        assert "stroke" not in node.attrib


@pytest.mark.parametrize("kind", PLOTS)
def test_everything_lies_inside_the_view(kind):
    root = _parsed(PLOTS[kind])
    height = float(root.get("viewBox").split()[3])
    for node in root.iter():
        for key, most in (("x", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("cx", WIDTH)):
            assert 0 <= float(node.get(key, 0)) <= most
        for key in ("y", "y1", "y2", "cy"):
            assert 0 <= float(node.get(key, 0)) <= height
        if node.tag == "rect":
            assert float(node.get("x")) + float(node.get("width")) <= WIDTH + 0.1


def test_an_interval_is_drawn_from_its_low_to_its_high_end():
    root = _parsed(_forest(_interval("one", 0.0, 1.0), _interval("two", 1.0, 3.0)))
    spans = []
    for group in root.iter("g"):
        line = next(n for n in group.iter("line") if n.get("x1") != n.get("x2"))
        spans.append((float(line.get("x1")), float(line.get("x2"))))
    (a, b), (c, d) = spans
    zero = next(float(n.get("x1")) for n in root.iter() if n.get("class") == "zero")
    assert a == pytest.approx(zero, abs=0.1)
    assert b == pytest.approx(c, abs=0.1)
    assert d - c == pytest.approx(2 * (b - a), abs=0.3)


def test_outcomes_have_shapes_of_their_own():
    drawn = {
        kind: re.search(r'<(circle|path) [^>]*?(class="\w+")[^>]*', group)[0]
        for kind in ("better", "worse", "changed", "unclear")
        for group in [_forest(_interval("x", 1, 2, kind)).split("<g ")[1]]
    }
    assert len(set(drawn.values())) == 4
    assert "hollow" in drawn["unclear"]


def test_what_is_not_known_is_named_but_not_drawn():
    row = svg.Interval("one", "–", None, None, None, "unclear")
    text = _forest(row)
    assert "one" in text
    assert "<g" not in text


def test_a_taller_bin_is_a_taller_bar():
    root = _parsed(PLOTS["histograms"])
    heights = [float(node.get("height")) for node in root.iter("rect")]
    assert heights[1] == pytest.approx(9 * heights[0], rel=0.02)


def test_a_longer_bar_is_a_larger_value_and_an_unknown_one_has_none():
    root = _parsed(PLOTS["bars"])
    fills = [n for n in root.iter("rect") if n.get("class") == "fill"]
    trough = next(n for n in root.iter("rect") if n.get("class") == "trough")
    assert float(fills[0].get("width")) == pytest.approx(
        float(trough.get("width")) / 2, abs=0.1
    )
    assert float(fills[1].get("width")) == 0


def test_series_have_their_dashes_and_their_own_markers():
    root = _parsed(PLOTS["curves"])
    lines = [n for n in root.iter("path") if n.get("class") == "line"]
    assert len({n.get("stroke-dasharray") for n in lines}) == 2
    assert list(root.iter("circle"))
    assert any(n.get("class") == "band" for n in root.iter("path"))
