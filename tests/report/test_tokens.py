import pytest

from mlx_rsft.report.tokens import tokens_page, visible


def _token(text, trained=False, special=False, number=7):
    return {"id": number, "text": text, "trained": trained, "special": special}


def _page(*tokens, ids=False):
    shown = {"where": "f.jsonl:1", "examples": [{"tokens": list(tokens)}]}
    return tokens_page(shown, ids=ids)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ab", "ab"),
        (" ab", " ab"),
        (" ", "·"),
        ("  ", "··"),
        ("\n\n", "↵\n↵\n"),
        ("\t", "⇥"),
        ("\x1b[31m", "␛[31m"),
        ("\x7f", "␡"),
        ("\x9b", "\\u009b"),
        ("\u202e", "\\u202e"),
        ("\u2028", "\\u2028"),
        ("Größe ☃", "Größe ☃"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text, seen):
    assert visible(text) == seen


def test_trained_and_special_tokens_have_their_own_look_and_their_ids_in_titles():
    text = _page(_token("a"), _token("b", trained=True), _token("<|x|>", special=True))
    assert '<span title="7">a</span>' in text
    assert '<span class="on" title="7">b</span>' in text
    assert '<span class="special" title="7">&lt;|x|&gt;</span>' in text
    assert "1 of 3 tokens are trained" in text
    assert "<sub>" not in text.split("</style>")[1]
    assert "b<sub>9</sub></span>" in _page(_token("b", number=9), ids=True)


def test_no_text_of_a_row_becomes_markup():
    text = _page(_token('</pre><script>alert("x")</script>'))
    assert "<script" not in text
    assert text.count("</pre>") == 1


def test_several_examples_of_a_row_stand_one_below_the_other():
    shown = {
        "where": "f.jsonl:1",
        "examples": [{"tokens": [_token("a")]}, {"tokens": [_token("b")]}],
    }
    text = tokens_page(shown, ids=False)
    assert text.index("Example 1 of 2") < text.index("Example 2 of 2")
