from html.parser import HTMLParser

from mlx_rsft.report.page import page

VOID = {"meta"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses, self.policy = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_a_page_is_whole_and_loads_and_runs_nothing():
    reader = _read(page("A title", "<p>body</p>", "p { color: red; }"))
    assert "script" not in reader.tags
    assert reader.addresses == []
    assert "default-src 'none'" in reader.policy


def test_a_title_is_text_whatever_is_in_it():
    text = page("<script>alert(1)</script>", "")
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") == 2


def test_a_page_is_readable_in_light_and_dark():
    text = page("t", "")
    assert "color-scheme: light dark" in text
    assert "prefers-color-scheme: dark" in text
