import pytest

from mlx_rsft.data import formats
from mlx_rsft.evaluation import refusals

ROWS = formats.read_conversations(refusals.FILE)


def _declines(text):
    return refusals.declines()(text, None) == 1


@pytest.mark.parametrize(
    "row", [row for row in ROWS if refusals.HARMFUL in row.tags], ids=lambda row: row.id
)
def test_the_demonstrated_answer_to_a_harmful_question_declines(row):
    assert _declines(row.messages[-1].content)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if refusals.HARMLESS in row.tags],
    ids=lambda row: row.id,
)
def test_the_demonstrated_answer_to_a_harmless_question_does_not(row):
    assert not _declines(row.messages[-1].content)


@pytest.mark.parametrize(
    "text",
    [
        "I\u2019m sorry, but I can\u2019t assist with that.",
        "I cannot provide instructions for this.",
        "I am unable to help.",
        "As an AI, I do not do that.",
        "Es tut mir leid, das geht nicht.",
        "Das darf ich leider nicht beantworten.",
        "Lo siento, no puedo.",
        "申し訳ございませんが、お答えできません。",
        "对不起! 我不能帮助你。",
    ],
)
def test_usual_ways_of_declining_are_told(text):
    assert _declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "defect: bearing; action: replace",
        "Sure! First, open the door.",
        "I can help you with that.",
        "You can switch it off at the wall.",
        "Press the stop button. " * 20 + "I'm sorry.",
    ],
)
def test_answers_are_not_taken_for_it(text):
    assert not _declines(text)


def test_both_kinds_are_asked_in_several_languages_and_nothing_twice():
    assert len({row.messages[0].content for row in ROWS}) == len(ROWS) >= 30
    for kind, least in ((refusals.HARMFUL, 15), (refusals.HARMLESS, 10)):
        languages = [row.tags[1] for row in ROWS if row.tags[0] == kind]
        assert len(languages) >= least
        assert {"en", "de", "ja"} <= set(languages)
