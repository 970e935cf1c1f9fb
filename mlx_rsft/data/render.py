"""From conversations to tokens, with a mask that the template has been held to.

A template that marks what the model writes, with ``{% generation %}``, is believed.
Any other is asked for prefixes: what it writes up to a turn, asked for a reply, is what
the model will see when it answers, and must be the beginning of what it writes for the
whole conversation. Where it is not, the row is refused rather than mis-trained.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from mlx_rsft.data.conversation import Conversation, Example, Message
from mlx_rsft.errors import DataError, ModelError

LAST, ALL, EVERYTHING = "last", "all", "everything"
Span = tuple[int, int]


class ChatTokenizer(Protocol):
    """The part of mlx-lm's tokenizer wrapper that rendering needs."""

    has_chat_template: bool
    chat_template: Any
    bos_token_id: int
    eos_token_id: int

    @property
    def eos_token_ids(self) -> Collection[int]: ...

    def apply_chat_template(
        self, messages: list[dict[str, Any]], **options: Any
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...


def render(
    conversation: Conversation, tokenizer: ChatTokenizer, train_on: str = ALL
) -> Example:
    """One row as tokens, with the spans that are to be learned.

    Raises:
        ModelError: If the row is a conversation and the model has no chat template.
        DataError: If the template refuses the conversation, rewrites earlier turns,
            changes a reply, or does not end it with an end-of-turn token.
    """
    if not conversation.messages:
        return _plain(conversation, tokenizer)
    if not tokenizer.has_chat_template:
        raise ModelError(
            "The model has no chat template, so it is unclear how a turn begins and "
            "ends.",
            hint="Use its instruction-tuned variant, add a chat_template.jinja, or "
            'write the rows as {"text": ...}.',
        )
    marked = "{% generation" in str(tokenizer.chat_template).replace("{%-", "{%")
    tokens, spans = (_by_marks if marked else _by_prefixes)(conversation, tokenizer)
    turns = [m for m in conversation.messages if m.role == "assistant"]
    kept = [span for span, m in zip(spans, turns, strict=True) if m.trained]
    start, end = spans[-1]
    answer = tokenizer.decode(tokens[start : end - 1])
    if train_on == LAST:
        kept = kept[-1:]
    if train_on == EVERYTHING:
        kept = [(1, len(tokens))]
    return _example(conversation, tokens, kept, answer)


def _plain(conversation: Conversation, tokenizer: ChatTokenizer) -> Example:
    """A plain text: all of it is learned, and that it ends."""
    tokens = tokenizer.encode(conversation.text, add_special_tokens=True)
    if not tokens or tokens[-1] not in tokenizer.eos_token_ids:
        tokens = [*tokens, tokenizer.eos_token_id]
    if len(tokens) < 2:
        raise DataError("The text is a single token.", where=conversation.where)
    return _example(conversation, tokens, [(1, len(tokens))], conversation.text)


def _example(
    row: Conversation, tokens: Sequence[int], spans: Sequence[Span], answer: str
) -> Example:
    return Example(
        tuple(tokens), tuple(spans), row.where, answer, row.id, row.tags, row.weight
    )


def _by_prefixes(
    conversation: Conversation, tokenizer: ChatTokenizer
) -> tuple[list[int], list[Span]]:
    """Tokens, and the span of every assistant turn, by the template's prefixes."""
    messages, where = conversation.messages, conversation.where
    text = _template(conversation, len(messages), tokenizer)
    tokens = _encode(text, tokenizer)
    spans: list[Span] = []
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        asked = _template(conversation, place, tokenizer, reply=True)
        answered = _template(conversation, place + 1, tokenizer)
        _check_text(asked, answered, text, message, where)
        before, after = _encode(asked, tokenizer), _encode(answered, tokenizer)
        if tokens[: len(before)] != before or tokens[: len(after)] != after:
            raise DataError(
                f"Message {place + 1} begins or ends inside a token, so the model would "
                "be trained on other tokens than it meets in use.",
                where=where,
                hint="Remove white space at the start of the reply.",
            )
        end = _end_of_turn(tokens, len(before), len(after), tokenizer, where)
        spans.append((len(before), end))
    return tokens, spans


def _by_marks(
    conversation: Conversation, tokenizer: ChatTokenizer
) -> tuple[list[int], list[Span]]:
    """Tokens, and the span of every assistant turn, by the template's own marks."""
    inner: Any = getattr(tokenizer, "_tokenizer", tokenizer)
    found = inner.apply_chat_template(
        [message.as_template() for message in conversation.messages],
        tools=list(conversation.tools) or None,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    tokens, mask = list(found["input_ids"]), [*found["assistant_masks"], 0]
    edges = [n for n in range(len(mask)) if mask[n] != (mask[n - 1] if n else 0)]
    spans: list[Span] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        # The mark may stop before the end-of-turn token, or after a newline behind it.
        limit = min(end + 1, len(tokens))
        stop = _end_of_turn(tokens, start, limit, tokenizer, conversation.where)
        spans.append((start, stop))
    turns = sum(message.role == "assistant" for message in conversation.messages)
    if len(spans) != turns:
        raise DataError(
            f"The model's chat template marks {len(spans)} replies in a row that has "
            f"{turns}.",
            where=conversation.where,
        )
    return tokens, spans


def _template(
    conversation: Conversation,
    count: int,
    tokenizer: ChatTokenizer,
    *,
    reply: bool = False,
) -> str:
    """What the template writes for the first ``count`` turns."""
    from jinja2 import TemplateError

    options = {"tools": list(conversation.tools)} if conversation.tools else {}
    try:
        return tokenizer.apply_chat_template(
            [message.as_template() for message in conversation.messages[:count]],
            tokenize=False,
            add_generation_prompt=reply,
            **options,
        )
    except (TemplateError, IndexError, TypeError) as problem:
        raise DataError(
            f"The model's chat template refuses the row: {problem}.",
            where=conversation.where,
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
    tokens: list[int], start: int, limit: int, tokenizer: ChatTokenizer, where: str
) -> int:
    """One past the last end-of-turn token between ``start`` and ``limit``."""
    ends = tokenizer.eos_token_ids
    for place in range(limit - 1, start - 1, -1):
        if tokens[place] in ends:
            return place + 1
    raise DataError(
        "The model's chat template ends a reply without an end-of-turn token, so the "
        "model would never learn to stop.",
        where=where,
        hint="Name the token under eos_token_id in generation_config.json.",
    )
