import pytest

from mlx_rsft.data import presence


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("be brief", "<s>be brief</s>"),
        ("  be brief\n", "<s>be brief</s>"),
        ("a /no_think b", "a  b"),
        ('say "x"\nand y', '"say \\"x\\"\\nand y"'),
        ("Größe", '"Gr\\u00f6\\u00dfe"'),
        ('{"size": 12, "ok": true}', "size=12, ok=True"),
    ],
)
def test_a_message_is_there_in_any_of_the_forms_templates_write(content, text):
    assert presence.says(text, content)
    assert not presence.says("nothing of it", content)


@pytest.mark.parametrize(
    "text",
    [
        'look {"part": 7, "unit": "mm \\"x\\"", "deep": [null, true]}',
        'look "{\\"part\\": 7, \\"unit\\": \\"mm \\\\\\"x\\\\\\"\\", \\"deep\\": [null, true]}"',
        "look(part=7, unit='mm \"x\"', deep=[None, True])",
    ],
)
def test_a_call_is_there_as_json_as_json_in_json_and_as_python(text):
    arguments = {"part": 7, "unit": 'mm "x"', "deep": [None, True]}
    call = {"function": {"name": "look", "arguments": arguments}}
    assert presence.missing_call(text, [call]) == ""
    for lost in ("look", "part", "7", "mm", "deep"):
        assert presence.missing_call(text.replace(lost, ""), [call]) == "look"


def test_the_first_tool_that_is_not_named_is_told():
    tools = [{"function": {"name": "a_tool"}}, {"name": "b_tool"}]
    assert presence.missing_tool("a_tool b_tool", tools) == ""
    assert presence.missing_tool("a_tool", tools) == "b_tool"
