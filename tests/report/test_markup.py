from mlx_rsft.report.markup import Html, el, joined, name, text, written


def test_text_is_escaped_once_and_markup_stays():
    inner = el("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    assert el("p", inner, "\"'") == f"<p>{inner}&quot;&#x27;</p>"
    assert text(Html("<i>")) == "<i>"
    assert joined(["<", inner], " & ") == f"&lt; &amp; {inner}"


def test_no_attribute_ends_early():
    made = el("p", class_='x" onclick="y', aria_label="<")
    assert made == '<p class="x&quot; onclick=&quot;y" aria-label="&lt;"></p>'


def test_what_cannot_be_seen_or_turns_the_text_is_made_visible():
    assert text("a\u202eb\x1b\u2028") == "a\\u202eb␛\\u2028"
    assert text("a\nb\u3000c\u00a0d") == "a\nb\u3000c\u00a0d"
    assert text("\U0001f468\u200d\U0001f527") == "\U0001f468\u200d\U0001f527"


def test_a_long_name_may_go_on_in_the_next_line_after_its_signs():
    assert "dft:<wbr>floor=0.1,<wbr>until" in name("dft:floor=0.1,until")
    assert "&lt;b&gt;" in name("<b>")


def test_japanese_text_is_set_in_japanese_letters():
    assert written("軸受を交換").startswith('<pre dir="auto" lang="ja">')
    assert written("轴承").startswith('<pre dir="auto">')
    assert written("</pre>") == '<pre dir="auto">&lt;/pre&gt;</pre>'
