import pytest

from mlx_rsft import testing
from mlx_rsft.data import render, templates
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.errors import ConfigError, DataError, ModelError

TURNS = (
    Message("system", "be brief"),
    Message("user", "Größe?"),
    Message("assistant", "12 mm"),
    Message("user", "and now"),
    Message("assistant", "13 mm"),
)


def _supervised(row, tokenizer):
    return [
        tokenizer.decode(list(example.tokens[start:end]))
        for example in render.render(row, tokenizer)
        for start, end in example.spans
    ]


def _bare():
    tokenizer = testing.byte_tokenizer()
    tokenizer._tokenizer.chat_template = None
    tokenizer.has_chat_template = False
    return tokenizer


def test_plain_joins_turns_by_a_blank_line_and_ends_each_reply():
    tokenizer = _bare()
    templates.choose(tokenizer, templates.PLAIN)
    row = Conversation(TURNS, "f:3")
    (example,) = render.render(row, tokenizer)
    text = tokenizer.decode(list(example.tokens))
    assert text == ("be brief\n\nGröße?\n\n12 mm<|end|>\n\nand now\n\n13 mm<|end|>")
    assert _supervised(row, tokenizer) == ["12 mm<|end|>", "13 mm<|end|>"]
    fed = templates.prompt(tokenizer, "Größe?", thinking=False)
    assert tokenizer.decode(fed) == "Größe?\n\n"


def test_plain_holds_with_a_tokenizer_that_joins_line_breaks(tokenizer_with):
    tokenizer = tokenizer_with("chatml", None, ("<|im_end|>",))
    before = tokenizer.chat_template
    try:
        templates.choose(tokenizer, templates.PLAIN)
        row = Conversation((Message("user", "q"), Message("assistant", "Ok")), "f:3")
        (example,) = render.render(row, tokenizer)
        fed = templates.prompt(tokenizer, "q", thinking=False)
        assert list(example.prompt) == fed
        assert _supervised(row, tokenizer) == ["Ok<|im_end|>"]
    finally:
        tokenizer._tokenizer.chat_template = before


@pytest.mark.parametrize("adds", [True, False])
def test_plain_begins_as_the_tokenizer_begins_texts(adds):
    tokenizer = _bare()
    inner = tokenizer._tokenizer
    inner.bos_token = "<|start|>"
    if adds:
        from tokenizers.processors import TemplateProcessing

        inner.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", inner.bos_token_id)]
        )
    templates.choose(tokenizer, templates.PLAIN)
    fed = templates.prompt(tokenizer, "q", thinking=False)
    assert (fed[0] == inner.bos_token_id) is adds
    assert fed.count(inner.bos_token_id) == int(adds)


def test_plain_has_no_place_for_tools():
    tokenizer = _bare()
    templates.choose(tokenizer, templates.PLAIN)
    call = {"function": {"name": "look", "arguments": {}}}
    turns = (Message("user", "q"), Message("assistant", "", {"tool_calls": [call]}))
    with pytest.raises(DataError, match="plain has no place for tools") as caught:
        render.render(Conversation(turns, "f:3"), tokenizer)
    assert caught.value.where == "f:3"
    tools = ({"function": {"name": "look"}},)
    with pytest.raises(DataError, match="plain has no place for tools"):
        render.render(Conversation(TURNS, "f:3", tools=tools), tokenizer)


def test_plain_needs_something_that_ends_a_reply():
    tokenizer = _bare()
    tokenizer._tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        templates.choose(tokenizer, templates.PLAIN)


def test_a_file_replaces_the_models_own_template(tmp_path):
    tokenizer = testing.byte_tokenizer()
    own = render.render(Conversation(TURNS, "f:3"), tokenizer)
    file = tmp_path / "my.jinja"
    file.write_text(testing.CHAT_TEMPLATE.replace("<|start|>", "<|start|>my "))
    templates.choose(tokenizer, templates.MODEL)
    assert render.render(Conversation(TURNS, "f:3"), tokenizer) == own
    templates.choose(tokenizer, str(file))
    (example,) = render.render(Conversation(TURNS, "f:3"), tokenizer)
    assert "<|start|>my user" in tokenizer.decode(list(example.tokens))
    fed = tokenizer.apply_chat_template(
        [m.as_template() for m in TURNS[:4]], add_generation_prompt=True
    )
    assert list(example.prompt) == fed


@pytest.mark.parametrize(
    ("text", "said"), [(None, "no template"), ("{% if %}", "is not a chat template")]
)
def test_a_file_that_is_missing_or_no_template_is_refused(text, said, tmp_path):
    file = tmp_path / "my.jinja"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        templates.choose(testing.byte_tokenizer(), str(file))
    assert caught.value.where == "data.template"


def test_the_switch_for_thinking_is_known_by_its_name(tokenizer_with):
    def switches(name):
        return templates.Template(tokenizer_with(name, None, ("<|im_end|>",))).switches

    assert switches("qwen3") == switches("smollm3") == ("enable_thinking",)
    assert switches("granite") == ("thinking",)
    assert switches("gptoss") == switches("qwen2_5") == switches("chatml") == ()


@pytest.mark.parametrize("thinking", [True, False])
def test_one_question_is_asked_as_stock_generation_asks_it(thinking, tokenizer_with):
    tokenizer = tokenizer_with("qwen3", None, ("<|im_end|>",))
    fed = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}],
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    assert templates.prompt(tokenizer, "q", thinking=thinking) == fed


def test_thinking_is_refused_where_there_is_no_switch_for_it():
    with pytest.raises(ConfigError, match="no switch for thinking"):
        templates.prompt(testing.byte_tokenizer(), "q", thinking=True)


def test_python_code_in_place_of_a_template_is_used_as_it_is():
    tokenizer = testing.byte_tokenizer()
    text = "<|start|>{}\n{}<|end|>\n"

    def own(messages, *, add_generation_prompt, enable_thinking):
        assert enable_thinking is False
        written = "".join(text.format(m["role"], m["content"]) for m in messages)
        return written + "<|start|>assistant\n" * add_generation_prompt

    tokenizer._tokenizer.chat_template = None
    wanted = render.render(Conversation(TURNS, "f:3"), testing.byte_tokenizer())
    tokenizer._chat_template = own
    tokenizer.has_chat_template = True
    assert render.render(Conversation(TURNS, "f:3"), tokenizer) == wanted
    templates.choose(tokenizer, templates.PLAIN)
    assert tokenizer.decode(templates.prompt(tokenizer, "q", thinking=False)) == "q\n\n"


def test_of_several_templates_the_one_for_tools_is_used_with_tools():
    tokenizer = testing.byte_tokenizer()
    tooled = "{% for t in tools %}{{ t['name'] }}{% endfor %}" + testing.CHAT_TEMPLATE
    tokenizer._tokenizer.chat_template = {
        "default": testing.CHAT_TEMPLATE,
        "tool_use": tooled,
    }
    (plain,) = render.render(Conversation(TURNS, "f:3"), tokenizer)
    row = Conversation(TURNS, "f:3", tools=({"name": "look"},))
    (example,) = render.render(row, tokenizer)
    assert tokenizer.decode(list(example.tokens)) == "look" + tokenizer.decode(
        list(plain.tokens)
    )
