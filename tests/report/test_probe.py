from html.parser import HTMLParser

from mlx_rsft.report.probe import Weighed, probe_page

EVIL = "<script>alert(1)</script>"


def _record(**more):
    entry = {
        "objective": "dft",
        "trained": 0.5,
        "ess": 0.25,
        "gradient": [0.5, 0.5],
        "gradient_by_class": {"content": 1.0},
        "format_learned": True,
        "format_slowdown": 12.0,
    }
    suspect = {"where": "f:1", "mean_p": 0.1, "answer": EVIL, "neighbours_say": "b"}
    return {
        "model": EVIL,
        "rows": 3,
        "rows_there_are": 9,
        "tokens": 12,
        "mean_p": 0.2,
        "nll": 3.0,
        "classes": {"content": {"tokens": 12, "mean_p": 0.2, "nll": 3.0}},
        "tags": {},
        "histogram": {"all": [3, 9]},
        "objectives": [entry],
        "suspects": [suspect],
        "neighbours_agree": True,
        "recommendation": {"objective": "sft", "reason": EVIL, "remarks": []},
        **more,
    }


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.classes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.classes.append(dict(attrs).get("class", ""))


def _page(*rows):
    text = probe_page(_record(), rows, "dft")
    reader = _Text()
    reader.feed(text)
    return text, reader


def test_each_trained_token_has_its_weight_in_writing_beside_its_colour():
    row = Weighed(
        "f:1", ((1, 3),), ["q", EVIL, "b"], [0.9, 0.01], [0.93, 0.014],
        ["content", "end"], True,
    )  # fmt: skip
    text, reader = _page(row)
    assert "<sub>0.93</sub>" in text
    assert "<sub>0.01</sub>" in text
    assert "w4 content" in reader.classes
    assert "w0 end" in reader.classes
    assert reader.classes.count("read") == 1
    assert 'title="p 0.0100, weight 0.014, end"' in text


def test_no_text_of_a_row_becomes_part_of_the_page():
    _, reader = _page(
        Weighed("f:1", ((0, 1),), [EVIL], [0.1], [0.1], ["content"], False)
    )
    assert "script" not in reader.tags


def test_what_is_on_the_page_can_be_read_without_a_model():
    text, _ = _page()
    for said in ("3 of 9 training rows", "x 12.0", "75.0%", "1 rows to look at"):
        assert said in text, said
