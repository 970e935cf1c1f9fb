import itertools
import json
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_rsft.report import sections
from mlx_rsft.report.comparison import BASE, Comparison, from_record
from mlx_rsft.report.sections import comparison_page
from mlx_rsft.report.words import LANGUAGES, Words


def _page(record, lang="en"):
    return comparison_page(from_record(record), lang)


def _section(page, key):
    return re.search(rf'<section id="{key}".*?</section>', page, re.DOTALL)[0]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_page_is_whole_loads_nothing_and_says_its_language(read, record, lang):
    reader = read(_page(record, lang))
    assert "script" not in reader.tags
    assert all(address.startswith("#") for address in reader.addresses)
    assert ("html", {"lang": lang}) in reader.attributes
    assert not any(key.startswith("on") for _, a in reader.attributes for key in a)


def test_ids_are_unique_and_every_reference_has_its_target(read, record):
    reader = read(_page(record))
    ids = [a["id"] for _, a in reader.attributes if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = {address[1:] for address in reader.addresses}
    for _, attributes in reader.attributes:
        for key in ("aria-labelledby", "aria-describedby"):
            wanted |= set(attributes.get(key, "").split())
    assert wanted <= set(ids)


def test_headings_go_down_one_step_at_a_time(read, record):
    reader = read(_page(record))
    levels = [int(tag[1]) for tag in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_a_page_has_landmarks_and_its_tables_have_headers(read, record):
    reader = read(_page(record))
    for mark in ("header", "nav", "main", "footer"):
        assert reader.tags.count(mark) == 1
    cells = [a for tag, a in reader.attributes if tag == "th"]
    assert cells
    assert {a.get("scope") for a in cells} == {"row", "col"}
    assert reader.tags.count("caption") == reader.tags.count("table")


def test_every_plot_has_a_title_and_says_in_words_what_it_shows(record):
    page = _page(record)
    plots = re.findall(r'<svg class="plot".*?</svg>', page, re.DOTALL)
    assert len(plots) == 3 + 3 + 3 + 3
    for plot in plots:
        root = ElementTree.fromstring(plot)
        title, desc = root.find("title"), root.find("desc")
        assert title.text
        assert len(desc.text) > 20
    assert "dft:floor=0.1: +25.0" in plots[1]


def test_no_text_of_the_record_becomes_markup(read, record):
    hostile = "</td></pre></svg></style><script>alert(1)</script><img src=x onerror=y>"
    spoiled = _spoiled(record, hostile)
    for lang in LANGUAGES:
        reader = read(_page(spoiled, lang))
        assert not {"script", "img"} & set(reader.tags)
        assert reader.tags.count("style") == 1


def _spoiled(value: Any, hostile: str, key: str = "") -> Any:
    """The record with hostile text in every place that takes any."""
    kept = ("verdict", "role", "better")
    if isinstance(value, dict):
        return {k: _spoiled(v, hostile, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_spoiled(v, hostile, key) for v in value]
    if isinstance(value, str) and key not in kept:
        return value + hostile
    return value


def test_hostile_names_are_only_text(read, record):
    text = json.dumps(record)
    hostile = "<script>x</script>&'"
    for old in ("staged", "new_phrasings", "exact_match"):
        text = text.replace(old, hostile)
    reader = read(_page(json.loads(text)))
    assert "script" not in reader.tags


def test_sections_follow_the_reader_from_words_to_numbers(record):
    keys = re.findall(r'<section id="(\w+)"', _page(record))
    assert keys[:4] == ["verdict", "failures", "next", "results"]
    assert keys[-2:] == ["method", "limits"]
    assert len(keys) == 13


def test_what_a_record_lacks_is_left_out(read, bare_record):
    for lang in LANGUAGES:
        page = _page(bare_record, lang)
        read(page)
        keys = re.findall(r'<section id="(\w+)"', page)
        assert keys == ["verdict", "next", "results", "method", "limits"]


@pytest.mark.parametrize(
    "part",
    ["curves", "histograms", "side_effects", "examples", "limits", "method", "splits"],
)
def test_each_optional_part_may_be_missing_or_empty(read, record, part):
    record[part] = type(record[part])()
    empty = _page(record)
    del record[part]
    assert _page(record) == empty
    read(empty)


def test_side_effects_stand_beside_the_gains_of_the_same_arm(record):
    table = _section(_page(record), "side_effects")
    row = next(r for r in table.split("<tr") if ">dft:<wbr>floor=0.1<" in r)
    assert "+25.0" in row
    assert "0.330 nats/token" in row
    assert "82.0" in row


def test_side_effects_that_nobody_measured_are_said_to_be_so(record):
    said = "No side effects were measured."
    assert said not in _page(record)
    record["side_effects"] = []
    assert said in _section(_page(record), "side_effects")


def test_examples_are_shown_as_written_and_judged_in_words(record):
    part = _section(_page(record), "examples")
    assert '<pre dir="auto" lang="ja">' in part
    assert part.count("✓ right") == 2
    assert part.count("✕ wrong") == 2
    assert "(empty)" in part
    assert "more letters" in part
    assert "\\u202e" in part


def test_only_so_many_examples_are_shown_and_the_rest_is_counted(record):
    record["examples"] = record["examples"][:1] * (sections.MOST_EXAMPLES + 5)
    part = _section(_page(record), "examples")
    assert part.count("<article") == sections.MOST_EXAMPLES
    assert "5 more are in the record" in part


def test_the_cost_table_compares_with_the_baseline(record):
    part = _section(_page(record), "cost")
    assert "1.02×" in part
    assert "2.53 Wh" in part
    assert "138,240" in part


def test_method_and_limits_on_record_are_there(record):
    page = _page(record)
    assert "10000" in _section(page, "method")
    assert "0.3,<wbr> 1,<wbr> 3" in _section(page, "method")
    assert record["limits"][0] in _section(page, "limits")


def test_a_japanese_page_has_no_english_words_of_ours(record):
    page = _page(record, "ja")
    english = Words("en")
    for key in ("verdict", "results", "unclear", "side_effects", "baseline_better"):
        assert english(key) not in page


def _strategy(kind: Any) -> st.SearchStrategy[Any]:
    """Any JSON value that the type takes."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.fixed_dictionaries(
            {f.name: _strategy(hints[f.name]) for f in fields(kind)}
        )
    origin, inner = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return st.one_of(
            [st.none() if k is type(None) else _strategy(k) for k in inner]
        )
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is Mapping:
        return st.dictionaries(NAMES, _strategy(inner[1]), max_size=3)
    if origin is Sequence:
        return st.lists(_strategy(inner[0]), max_size=3)
    return PLAIN[kind]


ARM = {"name": "sft", "splits": {}}
NAMES = st.sampled_from(["sft", BASE, "test", "nll", "", "<b>", "content"])
PLAIN = {
    int: st.integers(-(10**99), 10**99),
    float: st.floats(-1e100, 1e100),
    bool: st.booleans(),
    str: NAMES | st.sampled_from(["fraction", "higher", "lower"]),
    Any: st.none() | st.integers() | st.lists(st.floats(0, 1), max_size=2),
}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=_strategy(Comparison), level=st.floats(0.01, 0.5))
def test_whatever_is_read_can_be_drawn(record, level):
    record["level"] = level
    record["arms"] = [*{arm["name"]: arm for arm in record["arms"]}.values()] or [ARM]
    if record["histograms"]:
        before = [abs(count) for count in record["histograms"]["before"]]
        record["histograms"]["before"] = before
        record["histograms"]["after"] = {"sft": before[::-1]}
    found = from_record(record)
    for lang in LANGUAGES:
        assert comparison_page(found, lang).endswith("</html>\n")
