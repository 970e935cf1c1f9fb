import json

import pytest

from mlx_rsft.data import containers, formats
from mlx_rsft.data.conversation import Message, Row
from mlx_rsft.errors import DataError
from mlx_rsft.settings import DATA_FORMATS

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
        ({"prompt": {}, "completion": "a"}, "not text"),
        ({"messages": [USER, REPLY], "tags": [1]}, "tags"),
    ],
)
def test_a_row_that_cannot_be_trained_is_refused_with_its_place(record, said):
    with pytest.raises(DataError, match=said) as caught:
        _parse(record)
    assert caught.value.where == "f.jsonl:17"


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"part": 7}'},
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def _said(row):
    return [(m.role, m.content) for m in row.messages]


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (
            {"prompt": [USER], "completion": [REPLY]},
            [("user", "q"), ("assistant", "a")],
        ),
        (
            {"instruction": "q", "input": "x", "output": "a"},
            [("user", "q\n\nx"), ("assistant", "a")],
        ),
        (
            {"instruction": "q", "input": "", "output": "a", "system": "s"},
            [("system", "s"), ("user", "q"), ("assistant", "a")],
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            [("user", "q"), ("assistant", "a")],
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "q1 "},
                            {"type": "text", "text": "q2"},
                        ],
                    },
                    REPLY,
                ]
            },
            [("system", "s"), ("user", "q1 q2"), ("assistant", "a")],
        ),
    ],
)
def test_every_way_to_write_turns_is_understood(record, wanted):
    assert _said(_parse(record)) == wanted


def test_tags_in_a_cell_stand_between_commas():
    row = _parse({"text": "t", "tags": " old, noisy,,", "id": None})
    assert (row.tags, row.id) == (("old", "noisy"), "")


def test_a_table_whose_columns_fit_no_format_is_one_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,answer\n" + "q,a\n" * 99)
    (problem,) = formats.conversations(path)
    assert "'question', 'answer'" in str(problem)
    assert "--map" in str(problem)


def test_every_format_can_be_named_in_the_settings():
    assert (containers.AUTO, *formats.FORMATS) == DATA_FORMATS


def test_a_plain_text_is_no_conversation():
    row = _parse({"text": "once upon a time"})
    assert (row.messages, row.text) == ((), "once upon a time")
    with pytest.raises(DataError, match="empty"):
        _parse({"text": " "})


def test_tool_calls_and_results_keep_their_place_and_arguments_become_objects():
    row = _parse(
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "42", "tool_call_id": "c1"},
                REPLY,
            ],
            "tools": TOOLS,
        }
    )
    assert row.tools == tuple(TOOLS)
    call = row.messages[1].as_template()["tool_calls"][0]
    assert call["function"] == {"name": "look", "arguments": {"part": 7}}
    assert call["id"] == "c1"
    assert row.messages[2].as_template()["tool_call_id"] == "c1"


def test_a_sharegpt_function_call_is_a_tool_call():
    row = _parse(
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                {"from": "observation", "value": "r"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": json.dumps(TOOLS),
        }
    )
    assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].extra["tool_calls"][0]["function"]["name"] == "f"


def test_a_reply_of_weight_0_is_context_and_not_learned():
    row = _parse({"messages": [USER, {**REPLY, "weight": 0}, USER, REPLY]})
    assert [m.trained for m in row.messages if m.role == "assistant"] == [False, True]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": [USER, {**REPLY, "weight": 0}]}, "all have weight 0"),
        ({"messages": [USER, {**REPLY, "weight": 2}]}, "weight 2"),
        ({"messages": [{**USER, "weight": 1}, REPLY]}, "not the assistant's"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]},
            "'image_url'",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"x": 1}]}]},
            "function name",
        ),
        (
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"function": {"name": "f", "arguments": "{not json"}}
                        ],
                    },
                ]
            },
            "not JSON",
        ),
        ({"messages": [USER, REPLY], "tools": "[1"}, "tools"),
        ({"messages": [USER, REPLY], "tools": [1]}, "tools"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "'alien'"),
        ({"conversations": [{"from": "human"}]}, "no text"),
        ({"conversations": []}, "not a list"),
        ({"instruction": "q", "output": True}, "not text"),
        ({"instruction": "q", "output": 1e30}, "not text"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role"),
    ],
)
def test_what_cannot_be_understood_is_named(record, said):
    with pytest.raises(DataError, match=said) as caught:
        _parse(record)
    assert caught.value.where == "f.jsonl:17"


def test_a_named_format_settles_rows_that_fit_two(tmp_path):
    path = tmp_path / "a.jsonl"
    both = {"prompt": "q", "completion": "a", "text": "whole"}
    path.write_text(json.dumps(both) + "\n")
    with pytest.raises(DataError, match=r"more than one[\s\S]*--format"):
        formats.read_conversations(path)
    (row,) = formats.read_conversations(path, "text")
    assert row.text == "whole"


def test_every_bad_row_of_a_file_is_named_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": [USER, REPLY]})
    path.write_text(f'{good}\n{{"x\n{good}\n{{"messages": []}}\n')
    with pytest.raises(DataError, match=r"2 problems[\s\S]*jsonl:2[\s\S]*jsonl:4"):
        formats.read_conversations(path)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_the_thinking_of_a_reply_is_kept_whatever_it_is_called(key):
    row = _parse({"messages": [USER, {**REPLY, key: "hm"}]})
    assert row.messages[1].extra == {"reasoning_content": "hm"}


def test_choices_are_a_list_of_texts_or_a_cell_with_bars_and_else_left_alone():
    row = {"prompt": "q", "completion": "a"}
    for given, wanted in [
        (["a", "b"], ("a", "b")),
        ("a|b", ("a", "b")),
        ({"text": ["a", "b"]}, ()),
        ([1, 2], ()),
        (None, ()),
    ]:
        parsed = formats.parse(Row({**row, "choices": given}, "f:1"))
        assert parsed.choices == wanted
