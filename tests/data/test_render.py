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
    return _one(render.render(Conversation(tuple(messages), "f:3"), tokenizer))


def _one(examples):
    (example,) = examples
    return example


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


THINKS = (
    Message("user", "q"),
    Message("assistant", "thought|a"),
    Message("user", "q"),
    Message("assistant", "b"),
)


def test_a_template_that_rewrites_history_gets_an_example_per_reply():
    rewriting = _templated(STRIPS_HISTORY)
    first, second = render.render(Conversation(THINKS, "f:3"), rewriting)
    assert _supervised(first, rewriting) == ["thought|a<|end|>"]
    assert _supervised(second, rewriting) == ["b<|end|>"]
    assert "thought" not in rewriting.decode(list(second.tokens))
    assert first.where == second.where == "f:3"
    turns = [message.as_template() for message in THINKS[:3]]
    fed = rewriting.apply_chat_template(turns, add_generation_prompt=True)
    assert list(second.prompt) == fed


def test_only_replies_that_are_trained_must_fit_the_template():
    picky = _templated(
        "{% for m in messages %}<|start|>{{ m['role'] }}\n"
        "{% if m['content'] == 'bad' %}changed{% else %}{{ m['content'] }}{% endif %}"
        "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
        "{% endif %}"
    )
    turns = (Message("user", "q"), Message("assistant", "bad"), *THINKS[2:])
    row = Conversation(turns, "f:3")
    with pytest.raises(DataError, match="changes the text"):
        render.render(row, picky)
    last = _one(render.render(row, picky, render.LAST))
    assert _supervised(last, picky) == ["b<|end|>"]
    unlearned = (turns[0], Message("assistant", "bad", trained=False), *turns[2:])
    assert _supervised(_render(unlearned, picky), picky) == ["b<|end|>"]


def test_a_template_that_changes_a_reply_is_refused():
    shouting = _templated(
        testing.CHAT_TEMPLATE.replace(
            "{{ message['content'] }}",
            "{{ message['content'] | replace('12', 'TWELVE') }}",
        )
    )
    with pytest.raises(DataError, match="changes the text"):
        _render(TURNS[1:3], shouting)


def test_a_template_without_an_end_of_turn_is_refused():
    endless = _templated(testing.CHAT_TEMPLATE.replace("<|end|>", ""))
    with pytest.raises(DataError, match="never learn to stop"):
        _render(TURNS[1:3], endless)


def test_an_end_of_turn_that_the_vocabulary_lacks_changes_nothing(tokenizer):
    strange = testing.byte_tokenizer()
    strange.add_eos_token(str(testing.VOCABULARY + 7))
    assert _render(TURNS, strange) == _render(TURNS, tokenizer)
    text = Conversation((), "f:3", text="once \n")
    assert render.render(text, strange) == render.render(text, tokenizer)


def test_a_template_that_raises_names_the_row():
    strict = _templated("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="roles must alternate") as caught:
        _render(TURNS[1:3], strict)
    assert caught.value.where == "f:3"


def test_a_model_without_a_template_is_refused_not_guessed():
    bare = testing.byte_tokenizer()
    bare.has_chat_template = False
    with pytest.raises(ModelError, match=r"no chat template[\s\S]*--template"):
        render.render(Conversation(TURNS, "f:3"), bare)


MARKED = testing.CHAT_TEMPLATE.replace(
    "{{ message['content'] }}<|end|>\n",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
    "<|end|>{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}\n",
)


@pytest.mark.parametrize(
    "template",
    [
        MARKED,
        # The end-of-turn token outside the marks, and a newline inside them.
        MARKED.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>"),
        MARKED.replace("{% endgeneration %}", "\n{% endgeneration %}"),
    ],
)
def test_a_templates_own_marks_give_the_same_spans_as_its_prefixes(template, tokenizer):
    marked = _templated(template)
    example, wanted = _render(TURNS, marked), _render(TURNS, tokenizer)
    assert _supervised(example, marked) == _supervised(wanted, tokenizer)


def test_a_marked_template_may_rewrite_history():
    rewriting = _templated(
        STRIPS_HISTORY.replace(
            "{{ m['content'] }}{% else %}",
            "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
            "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% else %}",
        )
    )
    first, second = render.render(Conversation(THINKS, "f:3"), rewriting)
    assert _supervised(first, rewriting) == ["thought|a<|end|>"]
    assert _supervised(second, rewriting) == ["b<|end|>"]


UNMARKED = MARKED.replace("'assistant' %}{% gen", "'nobody' %}{% gen")
MARKS_ANOTHER = MARKED.replace("'assistant' %}{% gen", "'user' %}{% gen")


@pytest.mark.parametrize("template", [UNMARKED, MARKS_ANOTHER])
def test_a_reply_that_a_template_does_not_mark_is_refused(template):
    with pytest.raises(DataError, match="does not mark this reply"):
        _render(TURNS[:3], _templated(template))


def test_a_reply_of_weight_0_is_not_supervised(tokenizer):
    turns = list(TURNS)
    turns[2] = Message("assistant", "12 mm", trained=False)
    example = _render(turns, tokenizer)
    assert _supervised(example, tokenizer) == ["13 mm\nand more<|end|>"]


def test_an_example_keeps_its_rows_place_name_tags_and_weight(tokenizer):
    row = Conversation(TURNS, "f:3", id="a", tags=("new",), weight=2.0)
    example = _one(render.render(row, tokenizer))
    kept = (example.where, example.id, example.tags, example.weight)
    assert kept == ("f:3", "a", ("new",), 2.0)


def test_train_on_chooses_the_last_turn_or_everything(tokenizer):
    row = Conversation(TURNS, "f:3")
    last = _one(render.render(row, tokenizer, render.LAST))
    assert _supervised(last, tokenizer) == ["13 mm\nand more<|end|>"]
    whole = _one(render.render(row, tokenizer, render.EVERYTHING))
    assert whole.spans == ((1, len(whole.tokens)),)
    assert whole.answer == "13 mm\nand more"


def test_a_plain_text_is_learned_whole_and_that_it_ends(tokenizer):
    row = Conversation((), "f:3", text="once upon")
    example = _one(render.render(row, tokenizer))
    assert tokenizer.decode(list(example.tokens)) == "once upon<|end|>"
    assert example.spans == ((1, len(example.tokens)),)
    bare = testing.byte_tokenizer()
    bare.has_chat_template = False
    assert _one(render.render(row, bare)).tokens == example.tokens


def test_tools_and_their_calls_reach_the_template_and_are_learned():
    calling = _templated(
        "{% if tools %}<|start|>tools\n{{ tools[0]['function']['name'] }}<|end|>\n"
        "{% endif %}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}"
        "{% for c in m['tool_calls'] or [] %}{{ c['function']['name'] }}("
        "{{ c['function']['arguments'] | tojson }}){% endfor %}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    call = {"function": {"name": "look", "arguments": {"part": 7}}}
    row = Conversation(
        (
            Message("user", "q"),
            Message("assistant", "", {"tool_calls": [call]}),
            Message("tool", "42"),
            Message("assistant", "it is 42"),
        ),
        "f:3",
        tools=({"function": {"name": "look"}},),
    )
    example = _one(render.render(row, calling))
    assert "<|start|>tools\nlook" in calling.decode(list(example.tokens))
    assert _supervised(example, calling) == [
        'look({"part": 7})<|end|>',
        "it is 42<|end|>",
    ]


@pytest.mark.parametrize(
    "text", ["once", "<|start|>once", "once<|end|>", "<|start|>once<|end|>\n"]
)
@pytest.mark.parametrize("adds", ["begin", "both", "nothing"])
def test_a_plain_text_begins_and_ends_once_whoever_adds_it(text, adds):
    from tokenizers.processors import TemplateProcessing

    tokenizer = testing.byte_tokenizer()
    inner = tokenizer._tokenizer
    inner.bos_token = "<|start|>"
    begin, end = inner.bos_token_id, inner.eos_token_id
    single = {"begin": "<|start|> $A", "both": "<|start|> $A <|end|>"}.get(adds, "$A")
    inner.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<|start|>", begin), ("<|end|>", end)]
    )
    (example,) = render.render(Conversation((), "f:3", text=text), tokenizer)
    begins = adds != "nothing" or text.startswith("<|start|>")
    wanted = "<|start|>" * begins + "once<|end|>"
    assert tokenizer.decode(list(example.tokens)) == wanted
