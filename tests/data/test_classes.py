from mlx_rsft.data.classes import CLASSES, classify
from mlx_rsft.data.conversation import Example

END, SPECIAL = 99, 98


def _row(*answer, prompt=(1, 2)):
    tokens = (*prompt, *answer)
    return Example(tokens, ((len(prompt), len(tokens)),), "f")


def _names(rows):
    return [CLASSES[kind] for kind in classify(rows, {END}, {END, SPECIAL})]


def test_what_all_answers_share_is_their_form_whatever_stands_between():
    # key (50, 51), a value of its own, a separator (52), a value of its own
    rows = [_row(50, 51, 10 + n, 52, 53, 30 + n, END) for n in range(8)]
    wanted = [
        "template",
        "template",
        "content",
        "template",
        "template",
        "content",
        "end",
    ]
    assert _names(rows) == wanted * 8


def test_a_pair_that_comes_now_and_then_is_content():
    rows = [
        _row(*(60, 61) * (1 + n % 3), 10 + n, END, prompt=(n, 5 + n)) for n in range(9)
    ]
    assert "template" not in _names(rows)


def test_one_answer_of_ten_may_lack_the_form_and_two_may_not():
    def form(odd):
        shared = [_row(50, 51, 10 + n, END) for n in range(20 - odd)]
        rows = [*shared, *(_row(70 + n, END) for n in range(odd))]
        return _names(rows)[0]

    assert form(2) == "template"
    assert form(3) == "content"


def test_few_answers_have_no_form_but_special_tokens():
    rows = [_row(50, SPECIAL, 51, END) for _ in range(7)]
    assert _names(rows) == ["content", "template", "content", "end"] * 7


def test_each_turn_of_a_conversation_is_an_answer():
    rows = [
        Example(
            (1, 50, 51, 10 + n, END, 2, 50, 51, 30 + n, END), ((1, 5), (6, 10)), "f"
        )
        for n in range(4)
    ]
    assert _names(rows) == ["template", "template", "content", "end"] * 8
