"""From conversations to tokens, with a mask that the template has been held to.

The mask comes from prefixes: what the template writes up to a turn, asked for a reply,
is what the model will see when it answers, and must be the beginning of what it writes
for the whole conversation. Where it is not, the row is refused rather than mis-trained.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from mlx_rsft.data.conversation import Conversation, Example, Message
from mlx_rsft.errors import DataError, ModelError, RsftError, raise_together


class ChatTokenizer(Protocol):
    """The part of mlx-lm's tokenizer wrapper that rendering needs."""

    has_chat_template: bool

    @property
    def eos_token_ids(self) -> Collection[int]: ...

    def apply_chat_template(
        self, messages: list[dict[str, str]], **options: Any
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def render_all(
    conversations: Iterable[Conversation],
    tokenizer: ChatTokenizer,
    max_length: int,
) -> list[Example]:
    """Every conversation as an example; all that cannot be are named together.

    Raises:
        ModelError: If the model has no chat template.
        DataError: If a row is too long or the template does not fit it.
    """
    if not tokenizer.has_chat_template:
        raise ModelError(
            "The model has no chat template, so it is unclear how a turn begins and "
            "ends.",
            hint="Use its instruction-tuned variant, or add a chat_template.jinja.",
        )
    examples: list[Example] = []
    problems: list[RsftError] = []
    for conversation in conversations:
        try:
            example = render(conversation, tokenizer)
            _check_length(example, max_length)
            examples.append(example)
        except DataError as problem:
            problems.append(problem)
    raise_together(problems)
    return examples


def _check_length(example: Example, max_length: int) -> None:
    if len(example.tokens) > max_length:
        raise DataError(
            f"The row has {len(example.tokens)} tokens, more than the {max_length} "
            "allowed.",
            where=example.where,
            hint="Raise --max-length, or shorten the row; no answer is ever cut.",
        )


def render(conversation: Conversation, tokenizer: ChatTokenizer) -> Example:
    """One conversation as tokens, every assistant turn supervised.

    Raises:
        DataError: If the template refuses the conversation, rewrites earlier turns,
            changes a reply, or does not end it with an end-of-turn token.
    """
    messages, where = conversation.messages, conversation.where
    text = _template(messages, tokenizer, where)
    tokens = _encode(text, tokenizer)
    spans: list[tuple[int, int]] = []
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        asked = _template(messages[:place], tokenizer, where, reply=True)
        answered = _template(messages[: place + 1], tokenizer, where)
        _check_text(asked, answered, text, message, where)
        before, after = _encode(asked, tokenizer), _encode(answered, tokenizer)
        if tokens[: len(before)] != before or tokens[: len(after)] != after:
            raise DataError(
                f"Message {place + 1} begins or ends inside a token, so the model would "
                "be trained on other tokens than it meets in use.",
                where=where,
                hint="Remove white space at the start of the reply.",
            )
        spans.append(
            (len(before), _end_of_turn(tokens, before, after, tokenizer, where))
        )
    return Example(
        tuple(tokens),
        tuple(spans),
        where,
        answer=messages[-1].content,
        id=conversation.id,
        tags=conversation.tags,
    )


def _template(
    messages: Sequence[Message],
    tokenizer: ChatTokenizer,
    where: str,
    *,
    reply: bool = False,
) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            [message.as_template() for message in messages],
            tokenize=False,
            add_generation_prompt=reply,
        )
    except (TemplateError, IndexError) as problem:
        raise DataError(
            f"The model's chat template refuses the row: {problem}.",
            where=where,
            hint="Most templates want user and assistant turns to alternate.",
        ) from None


def _encode(text: str, tokenizer: ChatTokenizer) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _check_text(
    asked: str, answered: str, whole: str, message: Message, where: str
) -> None:
    if not answered.startswith(asked) or not whole.startswith(answered):
        raise DataError(
            "The model's chat template rewrites earlier turns when later ones follow, "
            "so this row cannot be trained as it will be used.",
            where=where,
            hint="Split it into rows with one assistant turn each.",
        )
    if message.content.strip() not in answered[len(asked) :]:
        raise DataError(
            "The model's chat template changes the text of an assistant reply.",
            where=where,
        )


def _end_of_turn(
    tokens: list[int],
    before: list[int],
    after: list[int],
    tokenizer: ChatTokenizer,
    where: str,
) -> int:
    ends = tokenizer.eos_token_ids
    for place in range(len(after) - 1, len(before) - 1, -1):
        if tokens[place] in ends:
            return place + 1
    raise DataError(
        "The model's chat template ends a reply without an end-of-turn token, so the "
        "model would never learn to stop.",
        where=where,
        hint="Name the token under eos_token_id in generation_config.json.",
    )
