"""Chat templates: which one is used, its switch for thinking, and what it writes.

What is written here is what stock generation feeds, to the letter, because it goes
through the same renderer with the same special tokens; only the layers around that
renderer, which cost more than it does, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_rsft.data.tokenizing import ChatTokenizer
from mlx_rsft.errors import ConfigError, ModelError

MODEL, PLAIN = "model", "plain"
CLOSE = "</think>"
CHOICES = (
    "model: the model's own; plain: turns joined by a blank line; or the path of a "
    ".jinja file"
)
MARK = r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}"
SWITCHES = ("enable_thinking", "thinking")
"""What templates call the variable that turns thinking on."""

FIELDS = r"reasoning_content|\.(thinking|reasoning)\b|['\"](thinking|reasoning)['\"]"
"""How templates read what a reply thinks, where they take it apart from what it says."""

PLAIN_TEMPLATE = (
    "{% if tools %}{{ raise_exception('plain has no place for tools') }}{% endif %}"
    "{{ first_token }}{% for message in messages %}"
    "{% if message.tool_calls or message.role == 'tool' %}"
    "{{ raise_exception('plain has no place for tools') }}{% endif %}"
    "{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if add_generation_prompt or not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% endfor %}"
)

Messages = Sequence[Mapping[str, Any]]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Written:
    """What a template wrote, and which ranges it marks as the model's own, if it does."""

    text: str
    marks: tuple[Span, ...] | None = None


class Template:
    """The chat template of a tokenizer.

    Attributes:
        source: Its text; where it has several, that for conversations without tools.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._inner: Any = getattr(tokenizer, "_tokenizer", tokenizer)
        self._special = dict(self._inner.special_tokens_map)
        self.source = "" if self._is_code else self._source(tools=False)

    @cached_property
    def _is_code(self) -> bool:
        """Whether Python code of the model or of mlx-lm stands in for a template."""
        from transformers import PreTrainedTokenizerBase

        own = getattr(type(self._inner), "apply_chat_template", None)
        stock = PreTrainedTokenizerBase.apply_chat_template
        return own is not stock or bool(
            getattr(self._tokenizer, "_chat_template", None)
        )

    def _source(self, *, tools: bool) -> str:
        known = self._inner.chat_template
        if isinstance(known, str):
            return known
        return self._inner.get_chat_template(None, [{}] if tools else None)

    @cached_property
    def is_marked(self) -> bool:
        """Whether it marks what the model writes, with ``{% generation %}``."""
        return re.search(MARK, self.source) is not None

    @cached_property
    def switches(self) -> tuple[str, ...]:
        """The variables it has that turn thinking on."""
        if self._is_code:
            return ("enable_thinking",)
        from jinja2 import Environment, meta

        bare = re.sub(MARK, "", self.source)  # jinja2 alone does not know the mark
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(bare)
        asked_for = meta.find_undeclared_variables(parsed)
        return tuple(name for name in SWITCHES if name in asked_for)

    @cached_property
    def takes_thinking(self) -> bool:
        """Whether it takes the thinking of a reply as a value of its own."""
        return re.search(FIELDS, self.source) is not None

    @cached_property
    def writes_thinking(self) -> bool:
        """Whether it knows thinking in the text of a reply."""
        return CLOSE in self.source

    def write(
        self, messages: Messages, tools: Messages, *, reply: bool, thinking: bool
    ) -> Written:
        """What it writes for the messages, as it stands in training and in use.

        Args:
            messages: The turns, as templates take them.
            tools: What the model is told it may call.
            reply: Whether to end with the beginning of a reply.
            thinking: The position of its switch, if it has one.
        """
        options: dict[str, Any] = dict.fromkeys(self.switches, thinking)
        if self._is_code:
            options |= {"tools": list(tools)} if tools else {}
            text = self._tokenizer.apply_chat_template(
                list(map(dict, messages)),
                tokenize=False,
                add_generation_prompt=reply,
                **options,
            )
            return Written(text)
        from transformers.utils.chat_template_utils import render_jinja_template

        render: Any = render_jinja_template
        texts, marks = render(
            conversations=[list(map(dict, messages))],
            tools=list(map(dict, tools)) or None,
            chat_template=self._source(tools=True) if tools else self.source,
            return_assistant_tokens_mask=self.is_marked,
            add_generation_prompt=reply,
            **self._special,
            **options,
        )
        return Written(texts[0], tuple(marks[0]) if self.is_marked else None)


def prompt(tokenizer: ChatTokenizer, question: str, *, thinking: bool) -> list[int]:
    """One question as the model meets it, in training as in use.

    Raises:
        ConfigError: If thinking is asked of a template without a switch for it.
    """
    turns = [{"role": "user", "content": question}]
    return conversation(tokenizer, turns, thinking=thinking)


def conversation(
    tokenizer: ChatTokenizer,
    messages: Messages,
    tools: Messages = (),
    *,
    thinking: bool,
) -> list[int]:
    """The turns so far as the model meets them when its reply is asked for.

    Raises:
        ConfigError: If thinking is asked of a template without a switch for it, or the
            template refuses the turns, such as a system prompt it has no place for.
    """
    template = Template(tokenizer)
    check_switch(template, thinking=thinking)
    from jinja2 import TemplateError

    try:
        asked = template.write(messages, tools, reply=True, thinking=thinking).text
    except (
        TemplateError, LookupError, TypeError, AttributeError, ValueError
    ) as problem:  # fmt: skip
        said = str(problem).rstrip(".")
        raise ConfigError(
            f"The chat template refuses the conversation: {said}."
        ) from None
    return tokenizer.encode(asked, add_special_tokens=False)


def check_switch(template: Template, *, thinking: bool) -> None:
    """Raise ConfigError if thinking is asked of a template that cannot turn it on."""
    if thinking and not template.switches:
        raise ConfigError(
            "The chat template of this model has no switch for thinking.",
            where="--thinking",
        )


def choose(tokenizer: ChatTokenizer, choice: str) -> None:
    """Give a tokenizer the template that was chosen for it.

    Args:
        tokenizer: Of the model; changed in place.
        choice: ``model``, ``plain`` or the path of a ``.jinja`` file.

    Raises:
        ConfigError: If there is no such file, or it is no template.
        ModelError: If ``plain`` meets a tokenizer without an end-of-text token.
    """
    if choice == MODEL:
        return
    changed: Any = tokenizer
    changed.chat_template = _plain(tokenizer) if choice == PLAIN else _read(choice)
    changed.has_chat_template = True
    changed._chat_template = None  # mlx-lm's stand-in for a template would outrank it


def _plain(tokenizer: Any) -> str:
    if tokenizer.eos_token is None:
        raise ModelError(
            "The tokenizer has no end-of-text token, so nothing would end a reply.",
            hint="Name one as eos_token in tokenizer_config.json.",
        )
    begins = tokenizer.encode("a", add_special_tokens=True)[0]
    first = "bos_token" if begins == tokenizer.bos_token_id else "''"
    return PLAIN_TEMPLATE.replace("first_token", first)


def _read(choice: str) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        text = Path(choice).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(
            f"There is no template {choice!r} that can be read ({problem}).",
            where="data.template",
            hint=f"{CHOICES}.",
        ) from None
    try:  # compiles it; there is nothing to write for no conversations
        render_jinja_template(conversations=[], chat_template=text)
    except TemplateError as problem:
        raise ConfigError(
            f"{choice} is not a chat template: {problem}.", where="data.template"
        ) from None
    return text
