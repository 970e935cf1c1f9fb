import json

import pytest

from mlx_rsft.data import formats
from mlx_rsft.data.conversation import Message, Row
from mlx_rsft.errors import DataError

USER = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}


def _parse(record):
    return formats.parse(Row(record, "f.jsonl:17"))


def test_messages_and_prompt_completion_say_the_same():
    wanted = (Message("user", "q"), Message("assistant", "a"))
    assert _parse({"messages": [USER, REPLY]}).messages == wanted
    assert _parse({"prompt": "q", "completion": "a"}).messages == wanted


def test_id_and_tags_travel_with_the_row():
    row = _parse({"messages": [USER, REPLY], "id": 7, "tags": ["x", "y"]})
    assert (row.id, row.tags, row.where) == ("7", ("x", "y"), "f.jsonl:17")
    assert _parse({"messages": [USER, REPLY], "tags": "x"}).tags == ("x",)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "no format"),
        ({"question": "q"}, "'question'"),
        ({"messages": [USER, REPLY], "prompt": "q", "completion": "a"}, "more than"),
        ({"messages": []}, "not a list of turns"),
        ({"messages": "hi"}, "not a list of turns"),
        ({"messages": [1]}, "not an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'robot'"),
        ({"messages": [{"role": "user"}]}, "no text"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "no text"),
        ({"messages": [USER]}, "assistant reply"),
        ({"messages": [USER, REPLY, USER]}, "last message is from"),
        ({"messages": [USER, {"role": "assistant", "content": "  "}]}, "empty"),
        ({"prompt": "q", "completion": ""}, "empty"),
        ({"prompt": 1, "completion": "a"}, "not text"),
        ({"messages": [USER, REPLY], "tags": [1]}, "tags"),
    ],
)
def test_a_row_that_cannot_be_trained_is_refused_with_its_place(record, said):
    with pytest.raises(DataError, match=said) as caught:
        _parse(record)
    assert caught.value.where == "f.jsonl:17"


def test_every_bad_row_of_a_file_is_named_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": [USER, REPLY]})
    path.write_text(f'{good}\n{{"x\n{good}\n{{"messages": []}}\n')
    with pytest.raises(DataError, match=r"2 problems[\s\S]*jsonl:2[\s\S]*jsonl:4"):
        formats.read_conversations(path)
