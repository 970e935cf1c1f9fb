"""What is learned of a row, on published templates, formats and kinds of rows.

For every template and every row, one of two things must hold. Either the supervised
tokens read as the replies with their end of turn and nothing else, behind exactly the
tokens that stock generation would feed; or the row is refused with its place, and the
refusal stands in a table here.
"""

import json
from dataclasses import dataclass, field

import pytest

from mlx_rsft.data import formats, masks, render
from mlx_rsft.data.conversation import Row
from mlx_rsft.errors import DataError

SYSTEM, ASKED, TOLD = "be brief", "Größe of part 7?", "12 mm"
ASKED_ON, TOLD_ON = "and part 8?", "it is 13 mm\nand more"
CALL = {"name": "look_up", "arguments": {"part": 7, "unit": 'mm "x"'}}
RESULT = '{"size": 12}'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks up a part.",
            "parameters": {
                "type": "object",
                "properties": {"part": {"type": "integer"}},
            },
        },
    }
]


def _user(text):
    return {"role": "user", "content": text}


def _said(text):
    return {"role": "assistant", "content": text}


CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "abcdefghi", "type": "function", "function": CALL}],
}
RETURNED = {
    "role": "tool",
    "tool_call_id": "abcdefghi",
    "name": "look_up",
    "content": RESULT,
}
KINDS = {
    "single": [_user(ASKED), _said(TOLD)],
    "system": [{"role": "system", "content": SYSTEM}, _user(ASKED), _said(TOLD)],
    "multi": [_user(ASKED), _said(TOLD), _user(ASKED_ON), _said(TOLD_ON)],
    "tools": [_user(ASKED), CALLING, RETURNED, _said(TOLD)],
}
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _sharegpt(turn):
    if "tool_calls" in turn:
        return {"from": "function_call", "value": json.dumps(CALL)}
    return {"from": SPEAKERS[turn["role"]], "value": turn["content"]}


def _records(kind):
    """The same row in every format that can say it."""
    turns = KINDS[kind]
    more = {"tools": TOOLS} if kind == "tools" else {}
    yield "messages", {"messages": turns, **more}
    pair = {"prompt": turns[:-1], "completion": turns[-1:]}
    if kind == "single":
        pair = {"prompt": ASKED, "completion": TOLD}
    yield "prompt-completion", {**pair, **more}
    if kind in ("single", "system"):
        alpaca = {"instruction": ASKED, "input": "", "output": TOLD}
        yield "alpaca", alpaca | ({"system": SYSTEM} if kind == "system" else {})
    yield "sharegpt", {"conversations": [_sharegpt(turn) for turn in turns], **more}


@dataclass(frozen=True)
class Case:
    """A published template and what is expected of it.

    Attributes:
        ends: The model's end-of-turn tokens; the first is the tokenizer's own.
        before: What the model writes before a reply; ``after`` behind it, before ends.
        end: The end of a turn.
        call: The supervised text of the tool call; None if tools are refused.
        refused: Kinds of rows that are refused, and why; or ``kind/format``.
        examples: How many examples two turns become, where that is the point.
    """

    ends: tuple[str, ...]
    begin: str | None = None
    before: str = ""
    after: str = ""
    call: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    examples: int | None = None

    @property
    def end(self):
        return self.ends[-1]


NO_TOOLS = {"tools": "drops or changes the tool 'look_up'"}
NO_CALLS = {"tools": "drops or changes the call of 'look_up'"}
MUST_THINK = dict.fromkeys(KINDS, "opens every reply with thinking")
HERMES = (
    '<tool_call>\n{"name": "look_up", "arguments": {"part": 7, "unit": "mm \\"x\\""}}'
    "\n</tool_call><|im_end|>"
)
LLAMA_CALL = (
    '{"name": "look_up", "parameters": {"part": 7, "unit": "mm \\"x\\""}}<|eot_id|>'
)
LFM_CALL = (
    "<|tool_call_start|>[look_up(part=7, unit='mm \"x\"')]<|tool_call_end|><|im_end|>"
)
XML_CALL = (
    "<tool_call>\n<function=look_up>\n<parameter=part>\n7\n</parameter>\n"
    '<parameter=unit>\nmm "x"\n</parameter>\n</function>\n</tool_call><|im_end|>'
)
IM_END, S = ("<|im_end|>",), ("</s>",)
QWEN = ("<|endoftext|>", "<|im_end|>")
LLAMA, BEGIN_LLAMA = ("<|end_of_text|>", "<|eot_id|>"), "<|begin_of_text|>"
GEMMA = ("<eos>", "<end_of_turn>")
PHI = ("<|endoftext|>", "<|end|>")
COHERE, BEGIN_COHERE = ("<|END_OF_TURN_TOKEN|>",), "<BOS_TOKEN>"
DEEPSEEK = ("<\uff5cend\u2581of\u2581sentence\uff5c>",)
BEGIN_DEEPSEEK = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
NO_IDS = {"tools/sharegpt": "Tool call IDs"}
GPT_OSS = ("<|endoftext|>", "<|call|>", "<|return|>")
ALTERNATE = "roles must alternate"

CASES = {
    "chatml": Case(IM_END, refused=NO_TOOLS),
    "smollm2": Case(IM_END, "<|im_start|>", refused=NO_TOOLS),
    "smollm3": Case(IM_END, refused=NO_CALLS),
    "zephyr": Case(S, "<s>", refused=NO_TOOLS),
    "mistral_v0_1": Case(S, "<s>", refused={**NO_TOOLS, "system": ALTERNATE}),
    "mistral_v0_3": Case(
        S,
        "<s>",
        before=" ",
        call='[TOOL_CALLS] [{"name": "look_up", "arguments": {"part": 7, "unit": '
        '"mm \\"x\\""}, "id": "abcdefghi"}]</s>',
        refused=NO_IDS,
    ),
    "phi4": Case(IM_END, refused=NO_TOOLS),
    "phi4_mini": Case(PHI, refused=NO_TOOLS),
    "olmo2": Case(("<|endoftext|>",), "<|endoftext|>", refused=NO_TOOLS),
    "granite": Case(
        ("<|end_of_text|>",),
        call='<|tool_call|>{"name": "look_up", "arguments": {"part": 7, "unit": '
        '"mm \\"x\\""}}<|end_of_text|>',
    ),
    "command_r7b": Case(
        COHERE,
        BEGIN_COHERE,
        before="<|START_RESPONSE|>",
        after="<|END_RESPONSE|>",
        call="<|START_THINKING|><|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "look_up", "parameters": '
        '{"part": 7, "unit": "mm \\"x\\""}}\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>',
    ),
    "llama3": Case(LLAMA, BEGIN_LLAMA, refused=NO_TOOLS),
    "llama3_training": Case(LLAMA, BEGIN_LLAMA, refused=NO_TOOLS),
    "llama3_1": Case(LLAMA, BEGIN_LLAMA, call=LLAMA_CALL),
    "llama3_2": Case(LLAMA, BEGIN_LLAMA, call=LLAMA_CALL),
    "qwen2_5": Case(QWEN, call=HERMES, examples=1),
    "qwen2_5_training": Case(QWEN, call=HERMES, examples=1),
    "qwen3": Case(QWEN, call=HERMES, examples=2),
    "qwen3_training": Case(QWEN, call=HERMES),
    "qwen3_instruct_2507": Case(QWEN, call=HERMES, examples=1),
    "qwen3_5_think": Case(QWEN, call=XML_CALL),
    "gemma": Case(GEMMA, "<bos>", refused={**NO_TOOLS, "system": "not supported"}),
    "gemma3": Case(GEMMA, "<bos>", refused=NO_TOOLS),
    "gemma3_training": Case(GEMMA, "<bos>", refused=NO_TOOLS),
    "phi3": Case(PHI, "<s>", refused=NO_TOOLS, examples=1),
    "phi3_5_training": Case(PHI, "<s>", refused=NO_TOOLS),
    "deepseekv3": Case(DEEPSEEK, BEGIN_DEEPSEEK, refused=MUST_THINK),
    "deepseek_r1_distill": Case(DEEPSEEK, BEGIN_DEEPSEEK, refused=MUST_THINK),
    "cohere": Case(COHERE, BEGIN_COHERE, refused=NO_TOOLS),
    "cohere2_training": Case(
        COHERE, BEGIN_COHERE, after="<|END_RESPONSE|>", refused=NO_TOOLS
    ),
    "lfm2_v2": Case(IM_END, "<|startoftext|>", call=LFM_CALL),
    "lfm2_v2_training": Case(IM_END, "<|startoftext|>", call=LFM_CALL),
    "gptoss": Case(
        GPT_OSS,
        before="<|channel|>final<|message|>",
        call=" to=functions.look_up<|channel|>commentary json<|message|>"
        '{"part": 7, "unit": "mm \\"x\\""}<|call|>',
    ),
}


def _supervised(examples, tokenizer):
    return [
        tokenizer.decode(list(example.tokens[start:end]))
        for example in examples
        for start, end in example.spans
    ]


def _fed(tokenizer, turns, tools, **options):
    """What stock generation feeds before a reply."""
    return tokenizer.apply_chat_template(
        turns,
        tools=tools,
        add_generation_prompt=True,
        **({"enable_thinking": False, "thinking": False} | options),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_exactly_the_replies_are_learned_behind_what_is_fed_in_use(
    name, kind, tokenizer_with
):
    case = CASES[name]
    tokenizer = tokenizer_with(name, case.begin, case.ends)
    replies = [case.before + text + case.after + case.end for text in (TOLD, TOLD_ON)]
    wanted = {"multi": replies, "tools": [case.call, replies[0]]}
    for form, record in _records(kind):
        row = formats.parse(Row(record, "f:7"))
        reason = case.refused.get(kind) or case.refused.get(f"{kind}/{form}")
        if reason:
            with pytest.raises(DataError, match=reason) as caught:
                render.render(row, tokenizer)
            assert caught.value.where == "f:7"
            continue
        examples = render.render(row, tokenizer)
        assert _supervised(examples, tokenizer) == wanted.get(kind, replies[:1]), form
        _check_prompts(examples, row, tokenizer)
        if case.examples and kind == "multi":
            assert len(examples) == case.examples


def _check_prompts(examples, row, tokenizer):
    turns = [message.as_template() for message in row.messages]
    last = _fed(tokenizer, turns[:-1], list(row.tools) or None)
    assert list(examples[-1].prompt) == last
    first = next(n for n, m in enumerate(row.messages) if m.role == "assistant")
    begin = _fed(tokenizer, turns[:first], list(row.tools) or None)
    assert list(examples[0].tokens[: examples[0].spans[0][0]]) == begin
    ends = tokenizer.eos_token_ids
    for example in examples:
        bos = tokenizer.bos_token_id
        assert bos is None or example.tokens[:2] != (bos, bos)
        for start, end in example.spans:
            assert [t in ends for t in example.tokens[start:end]].count(True) == 1


THOUGHT, THOUGHT_ON = "let me think", "hm, larger"
THINKING = [
    _user(ASKED),
    {**_said(TOLD), "reasoning_content": THOUGHT},
    _user(ASKED_ON),
    _said(f"<think>\n{THOUGHT_ON}\n</think>\n\n{TOLD_ON}"),
]
BLOCK = "<think>\n{}\n</think>\n\n{}"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
THINKERS = {
    "qwen3": BLOCK,
    "qwen3_training": BLOCK,
    "qwen3_5_think": BLOCK.removeprefix("<think>\n"),
    "smollm3": BLOCK,
    "deepseekv3": BLOCK.removeprefix("<think>\n"),
    "deepseek_r1_distill": BLOCK.removeprefix("<think>\n"),
    "gptoss": "<|channel|>analysis<|message|>{}<|end|>" + FINAL + "{}",
}


@pytest.mark.parametrize("name", THINKERS)
def test_thinking_is_learned_with_the_reply_behind_a_prompt_that_asks_for_it(
    name, tokenizer_with
):
    case, form = CASES[name], THINKERS[name]
    tokenizer = tokenizer_with(name, case.begin, case.ends)
    row = formats.parse(Row({"messages": THINKING}, "f:7"))
    examples = render.render(row, tokenizer)
    wanted = [form.format(THOUGHT, TOLD), form.format(THOUGHT_ON, TOLD_ON)]
    assert _supervised(examples, tokenizer) == [text + case.end for text in wanted]
    fed = _fed(tokenizer, THINKING[:3], None, enable_thinking=True, thinking=True)
    assert list(examples[-1].prompt) == fed


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma3", "command_r7b"])
def test_reasoning_that_a_template_has_no_place_for_is_refused(name, tokenizer_with):
    case = CASES[name]
    tokenizer = tokenizer_with(name, case.begin, case.ends)
    row = formats.parse(Row({"messages": THINKING[:2]}, "f:7"))
    with pytest.raises(DataError, match="drops or changes the reasoning") as caught:
        render.render(row, tokenizer)
    assert caught.value.where == "f:7"


@pytest.mark.parametrize("name", ["llama3_2", "smollm3"])
def test_a_switch_in_the_system_message_is_not_taken_for_a_dropped_one(
    name, tokenizer_with
):
    case = CASES[name]
    turns = [{"role": "system", "content": "be brief /no_think"}, *KINDS["single"]]
    row = formats.parse(Row({"messages": turns}, "f:7"))
    (example,) = render.render(row, tokenizer_with(name, case.begin, case.ends))
    assert example.answer == TOLD


SYSTEM_BY_DEFAULT = {
    "qwen2_5": "You are Qwen, created by Alibaba Cloud.",
    "smollm2": "named SmolLM, trained by Hugging Face",
    "granite": "You are Granite, developed by IBM.",
}


@pytest.mark.parametrize("name", SYSTEM_BY_DEFAULT)
def test_a_templates_own_system_message_is_kept_and_is_the_same_in_use(
    name, tokenizer_with
):
    case = CASES[name]
    tokenizer = tokenizer_with(name, case.begin, case.ends)
    row = formats.parse(Row({"prompt": ASKED, "completion": TOLD}, "f:7"))
    (example,) = render.render(row, tokenizer)
    assert SYSTEM_BY_DEFAULT[name] in tokenizer.decode(list(example.prompt))
    assert list(example.prompt) == _fed(tokenizer, [_user(ASKED)], None)


JSON_TEXT = (
    "{% for t in tools or [] %}{{ t['function']['name'] }} {% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}{{ c['function']['name'] + ' ' + "
    "c['function']['arguments'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tools_row(turns):
    return formats.parse(Row({"messages": turns, "tools": TOOLS}, "f:7"))


@pytest.fixture
def templated(tokenizer_with):
    """The byte-exact demo tokenizer with a template of the test's."""
    tokenizer = tokenizer_with("chatml", None, IM_END)
    before = tokenizer.chat_template

    def change(template):
        tokenizer._tokenizer.chat_template = template
        return tokenizer

    yield change
    tokenizer._tokenizer.chat_template = before


def test_arguments_are_json_text_where_a_template_wants_that(templated):
    tokenizer = templated(JSON_TEXT)
    examples = render.render(_tools_row(KINDS["tools"]), tokenizer)
    call = json.dumps(CALL["arguments"])
    wanted = [f"look_up {call}<|im_end|>", f"{TOLD}<|im_end|>"]
    assert _supervised(examples, tokenizer) == wanted


def test_a_tool_call_or_an_argument_that_a_template_drops_is_refused(templated):
    without_value = JSON_TEXT.replace("c['function']['arguments'] }}", "'{}' }}")
    without_call = JSON_TEXT.replace("m['tool_calls']", "m['x']")
    for template in (without_call, without_value):
        for turns in (KINDS["tools"], KINDS["tools"][:2]):
            with pytest.raises(DataError, match="the call of 'look_up'") as caught:
                render.render(_tools_row(turns), templated(template))
            assert caught.value.where == "f:7"


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_a_message_that_a_template_drops_is_refused(role, templated):
    turns = [{"role": "system", "content": SYSTEM}, *KINDS["tools"]]
    dropping = JSON_TEXT.replace(
        "m['role'] + '\n' + m['content']",
        f"m['role'] + '\n' + (m['content'] if m['role'] != '{role}' else '')",
    )
    render.render(_tools_row(turns), templated(JSON_TEXT))
    with pytest.raises(DataError, match=f"drops or changes message ., from the {role}"):
        render.render(_tools_row(turns), templated(dropping))


def test_a_reply_with_an_end_of_turn_in_its_text_is_refused(templated):
    turns = [_user(ASKED), _said("12<|im_end|> mm")]
    row = formats.parse(Row({"messages": turns}, "f:7"))
    with pytest.raises(DataError, match="end-of-turn token in its text"):
        render.render(row, templated(JSON_TEXT))


def test_a_template_that_opens_a_reply_otherwise_than_it_asks_is_refused(templated):
    other = JSON_TEXT.replace(
        "<|im_start|>assistant\n{% endif", "<|im_start|>x{% endif"
    )
    row = formats.parse(Row({"messages": KINDS["single"]}, "f:7"))
    with pytest.raises(DataError, match="begins a reply otherwise") as caught:
        render.render(row, templated(other))
    assert caught.value.where == "f:7"


def test_replies_share_a_text_only_where_the_later_begins_with_the_earlier():
    first = masks.Turn(1, "ask.told| ", 4, 9)
    adds = masks.Turn(3, "ask.told|ask.more|", 13, 18)
    rewrites = masks.Turn(3, "ask.....|ask.more|", 13, 18)
    assert masks.together([first, adds]) == [[first, adds]]
    assert masks.together([first, rewrites]) == [[first], [rewrites]]
