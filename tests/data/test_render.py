import pytest

from mlx_rsft import testing
from mlx_rsft.data import render
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.errors import DataError, ModelError

TURNS = (
    Message("system", "be brief"),
    Message("user", "Größe?"),
    Message("assistant", "12 mm"),
    Message("user", "and now\n"),
    Message("assistant", "13 mm\nand more"),
)
STRIPS_HISTORY = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}"
    "{% else %}{{ m['content'].split('|')[-1] }}{% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return testing.byte_tokenizer()


def _templated(template):
    tokenizer = testing.byte_tokenizer()
    tokenizer._tokenizer.chat_template = template
    return tokenizer


def _render(messages, tokenizer):
    return render.render(Conversation(tuple(messages), "f:3"), tokenizer)


def _supervised(example, tokenizer):
    return [tokenizer.decode(list(example.tokens[a:b])) for a, b in example.spans]


def test_every_assistant_turn_and_its_end_is_supervised_and_nothing_else(tokenizer):
    example = _render(TURNS, tokenizer)
    assert _supervised(example, tokenizer) == ["12 mm<|end|>", "13 mm\nand more<|end|>"]
    assert example.answer == "13 mm\nand more"


def test_the_newline_after_the_end_of_turn_is_not_supervised(tokenizer):
    example = _render(TURNS[:3], tokenizer)
    assert tokenizer.decode(list(example.tokens)).endswith("12 mm<|end|>\n")
    assert example.spans[-1][1] == len(example.tokens) - 1


def test_the_prompt_is_what_stock_generation_would_feed(tokenizer):
    example = _render(TURNS, tokenizer)
    turns = [message.as_template() for message in TURNS[:4]]
    fed = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    assert list(example.prompt) == fed


def test_a_template_that_rewrites_history_is_refused():
    rewriting = _templated(STRIPS_HISTORY)
    turns = [
        Message("user", "q"),
        Message("assistant", "thought|a"),
        Message("user", "q"),
        Message("assistant", "b"),
    ]
    with pytest.raises(DataError, match="rewrites earlier turns") as caught:
        _render(turns, rewriting)
    assert caught.value.where == "f:3"
    assert _render(turns[:2], rewriting).spans


def test_a_template_that_changes_a_reply_is_refused():
    shouting = _templated(
        testing.CHAT_TEMPLATE.replace("message['content']", "message['content']|upper")
    )
    with pytest.raises(DataError, match="changes the text"):
        _render(TURNS[1:3], shouting)


def test_a_template_without_an_end_of_turn_is_refused():
    endless = _templated(testing.CHAT_TEMPLATE.replace("<|end|>", ""))
    with pytest.raises(DataError, match="never learn to stop"):
        _render(TURNS[1:3], endless)


def test_a_template_that_raises_names_the_row():
    strict = _templated("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="roles must alternate") as caught:
        _render(TURNS[1:3], strict)
    assert caught.value.where == "f:3"


def test_a_model_without_a_template_is_refused_not_guessed():
    bare = testing.byte_tokenizer()
    bare.has_chat_template = False
    with pytest.raises(ModelError, match="no chat template"):
        render.render_all([Conversation(TURNS, "f:3")], bare, 999)


def test_a_row_that_is_too_long_is_refused_whole_with_its_length(tokenizer):
    rows = [Conversation(TURNS[1:3], f"f:{n}") for n in (1, 2)]
    length = len(render.render(rows[0], tokenizer).tokens)
    assert len(render.render_all(rows, tokenizer, length)) == 2
    with pytest.raises(DataError, match=rf"f:1: The row has {length} tokens[\s\S]*f:2"):
        render.render_all(rows, tokenizer, length - 1)
