from mlx_rsft.report.page import page


def test_a_page_is_whole_and_loads_and_runs_nothing(read):
    reader = read(page("A title", "<p>body</p>", "p { color: red; }"))
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


def test_a_page_has_its_language_and_its_landmarks(read):
    reader = read(page("t", "", lang="ja", lead="<p>x</p>", foot="<footer></footer>"))
    assert ("html", {"lang": "ja"}) in reader.attributes
    places = [reader.tags.index(tag) for tag in ("header", "h1", "main", "footer")]
    assert places == sorted(places)
