import json

import pytest

from mlx_rsft import testing
from mlx_rsft.data import formats, questions, templates
from mlx_rsft.data.render import render
from mlx_rsft.errors import ConfigError, DataError

USER, REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}
ASKED = {
    "a prompt": ({"prompt": "a"}, [USER]),
    "a prompt with its completion": ({"prompt": "a", "completion": "b"}, [USER]),
    "an empty completion": ({"prompt": "a", "completion": ""}, [USER]),
    "a null completion": ({"prompt": "a", "completion": None}, [USER]),
    "turns as a prompt": ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
    "messages that ask": ({"messages": [USER]}, [USER]),
    "messages with an answer": ({"messages": [SYSTEM, USER, REPLY]}, [SYSTEM, USER]),
    "an empty answer": ({"messages": [USER, {**REPLY, "content": ""}]}, [USER]),
    "several turns": ({"messages": [USER, REPLY, USER, REPLY]}, [USER, REPLY, USER]),
    "a question at last": ({"messages": [USER, REPLY, USER]}, [USER, REPLY, USER]),
    "alpaca": ({"instruction": "a", "system": "s"}, [SYSTEM, USER]),
    "sharegpt": ({"conversations": [{"from": "human", "value": "a"}]}, [USER]),
}


def _file(folder, *records):
    path = folder / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_is_all_before_the_last_reply(tmp_path, name):
    record, turns = ASKED[name]
    (row,) = questions.read(_file(tmp_path, {**record, "id": 7, "tags": "x,y"}))
    assert [message.as_template() for message in row.messages] == turns
    assert (row.id, row.tags) == ("7", ("x", "y"))


def test_every_data_format_can_be_asked():
    assert set(questions.QUESTIONS) == set(formats.FORMATS)


def test_a_text_is_to_be_continued(tmp_path):
    (row,) = questions.read(_file(tmp_path, {"text": "once"}))
    assert (row.messages, row.text) == ((), "once")


def test_a_question_is_asked_as_evaluation_asks_it(tmp_path):
    record = {"messages": [SYSTEM, USER, REPLY, USER, REPLY]}
    path = _file(tmp_path, record)
    tokenizer = testing.byte_tokenizer()
    (example,) = render(formats.read_conversations(path)[0], tokenizer)
    (row,) = questions.read(path)
    messages = [message.as_template() for message in row.messages]
    asked = templates.conversation(tokenizer, messages, thinking=False)
    assert tuple(asked) == example.prompt


def test_all_rows_that_ask_nothing_are_named_at_once(tmp_path):
    path = _file(tmp_path, {"prompt": "a"}, {"messages": [REPLY]}, {"x": 1}, USER)
    with pytest.raises(DataError, match="3 problems") as told:
        questions.read(path)
    for place in (":2: No turn", ":3: The row fits no", ":4: The row fits no"):
        assert place in str(told.value)
    with pytest.raises(ConfigError, match="Did you mean 'alpaca'"):
        questions.read(path, "alpacca")
