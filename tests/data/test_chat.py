import json

import pytest

from mlx_rsft.data import formats
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import DataError

USER = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}


def _parse(record):
    return formats.parse(Row(record, "f.jsonl:17"))


def _said(row):
    return [(m.role, m.content) for m in row.messages]


TURNS = [("user", "q"), ("assistant", "a")]
ASKED = {
    "from": "human",
    "value": "q",
}


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"messages": [USER, {"role": "model", "content": "a"}]}, TURNS),
        ({"messages": [{"role": "Human", "content": "q"}, REPLY]}, TURNS),
        ({"messages": [ASKED, {"from": "gpt", "value": "a"}]}, TURNS),
        ({"conversations": [USER, REPLY]}, TURNS),
        ({"conversations": json.dumps([ASKED, REPLY])}, TURNS),
        (
            {"conversations": [{"from": "system", "value": "s"}, USER, REPLY]},
            [("system", "s"), *TURNS],
        ),
        ({"messages": json.dumps([USER, REPLY]), "tools": "", "tags": ""}, TURNS),
        ({"messages": [{**USER, "weight": None}, {**REPLY, "weight": None}]}, TURNS),
        ({"instruction": "q", "input": None, "output": "a", "system": None}, TURNS),
        ({"prompt": "q", "completion": "a", "text": None}, TURNS),
        (
            {"instruction": "q", "output": 12},
            [("user", "q"), ("assistant", "12")],
        ),
        (
            {"prompt": 7, "completion": -0.5},
            [("user", "7"), ("assistant", "-0.5")],
        ),
    ],
)
def test_what_exports_really_hold_is_understood(record, wanted):
    assert _said(_parse(record)) == wanted


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": "[{'role': 'user'}]"}, '"messages" is not JSON'),
        ({"messages": '[{"role": "user", "role": "x"}]'}, "'role' is there twice"),
        ({"messages": "hello"}, "not a list of turns"),
        ({"prompt": "q", "completion": None}, '"completion" is not text'),
        ({"prompt": "q", "completion": False}, '"completion" is not text'),
        ({"messages": [{"role": "x" * 10**6, "content": "q"}]}, "has the role 'xxx"),
        (dict.fromkeys(map(str, range(10**5))), "fits no format"),
    ],
)
def test_an_error_is_short_however_long_the_row(record, said):
    with pytest.raises(DataError, match=said) as caught:
        _parse(record)
    assert len(str(caught.value)) < 600


def test_an_older_function_call_is_a_tool_call():
    call = {"name": "look", "arguments": '{"part": 7}'}
    turn = {"role": "assistant", "content": None, "function_call": call}
    told = {"role": "function", "name": "look", "content": "42"}
    row = _parse({"messages": [USER, turn, told, REPLY]})
    (made,) = row.messages[1].extra["tool_calls"]
    assert made["function"] == {"name": "look", "arguments": {"part": 7}}
    assert row.messages[2].role == "tool"
