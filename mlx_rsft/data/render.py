"""From conversations to tokens, with a mask that the template has been held to.

What is learned of a reply is decided in ``masks``, on the text; here it becomes ranges
of tokens. A range begins where the tokens of the text before it end, so that the model
is trained on the very tokens it is fed in use: where prompt and reply would share a
token, they are encoded apart. A row that cannot be is refused rather than mis-trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mlx_rsft.data import masks
from mlx_rsft.data.conversation import Conversation, Example
from mlx_rsft.data.masks import Turn
from mlx_rsft.data.templates import CHOICES, Template
from mlx_rsft.data.tokenizing import ChatTokenizer, Encoder
from mlx_rsft.errors import DataError, ModelError

LAST, ALL, EVERYTHING = "last", "all", "everything"
Span = tuple[int, int]


def render(
    conversation: Conversation, tokenizer: ChatTokenizer, train_on: str = ALL
) -> list[Example]:
    """One row as tokens, with the spans that are to be learned.

    Usually one example. A template that rewrites earlier turns when later ones follow
    gets one for each reply, so that every reply is learned behind what the model will
    have before it.

    Raises:
        ModelError: If the row is a conversation and the model has no chat template.
        DataError: If the template refuses the conversation, drops or changes some of
            it, or does not end a reply with an end-of-turn token.
    """
    if not conversation.messages:
        return [_plain(conversation, tokenizer)]
    if not tokenizer.has_chat_template:
        raise ModelError(
            "The model has no chat template, so it is unclear how a turn begins and "
            "ends.",
            hint="Use its instruction-tuned variant, name a template with --template "
            f'({CHOICES}), or write the rows as {{"text": ...}}.',
        )
    reader = _reader(tokenizer)
    places = [n for n, m in enumerate(conversation.messages) if m.role == "assistant"]
    trained = [place for place in places if conversation.messages[place].trained]
    wanted = {LAST: trained[-1:], ALL: trained, EVERYTHING: places[-1:]}[train_on]
    ends = tuple(reader.ends.values())
    found = masks.turns(conversation, wanted, reader.template, ends)
    examples = [
        example
        for group in masks.together(found)
        for example in reader.examples(group, conversation)
    ]
    if train_on == EVERYTHING:
        return [_everything(example) for example in examples]
    return examples


class _Reader:
    """What rendering needs of a tokenizer, made once."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self.template = Template(tokenizer)
        self.encoder = Encoder(tokenizer)
        self.ends = _end_texts(tokenizer)
        self._tokenizer = tokenizer

    def examples(self, group: Sequence[Turn], row: Conversation) -> list[Example]:
        """Replies that fit one text: one example, if they fit its tokens too."""
        encoded = self.encoder.encode(group[-1].text)
        spans = [(encoded.at(turn.start), encoded.at(turn.end)) for turn in group]
        clean = [(a, b) for a, b in spans if a is not None and b is not None]
        if len(clean) == len(group):
            return [self._example(encoded.tokens, clean, group, row)]
        if len(group) > 1:
            return [made for turn in group for made in self.examples([turn], row)]
        return [self._apart(group[0], row)]

    def _apart(self, turn: Turn, row: Conversation) -> Example:
        """A reply encoded on its own, which is how it is generated."""
        before = self.encoder.ids(turn.text[: turn.start])
        reply = self.encoder.encode(turn.text[turn.start :])
        end, tokens = reply.at(turn.end - turn.start), [*before, *reply.tokens]
        whole, said = self.encoder.ids(turn.text), self._tokenizer.decode
        if end is None or said(tokens) != said(whole):
            raise DataError(
                f"Message {turn.place + 1} begins or ends inside a token, so the model "
                "would be trained on other tokens than it meets in use.",
                where=row.where,
                hint="Remove white space at the start of the reply.",
            )
        return self._example(tokens, [(len(before), len(before) + end)], [turn], row)

    def _example(
        self,
        tokens: Sequence[int],
        spans: Sequence[Span],
        group: Sequence[Turn],
        row: Conversation,
    ) -> Example:
        for (start, end), turn in zip(spans, group, strict=True):
            stops = [n for n in range(start, end) if tokens[n] in self.ends]
            if stops != [end - 1]:
                raise DataError(
                    f"Message {turn.place + 1} has {len(stops)} end-of-turn tokens, "
                    "expected one, at its end.",
                    where=row.where,
                )
        start, end = spans[-1]
        answer = self._tokenizer.decode(list(tokens[start : end - 1]))
        return _example(row, tokens, spans, answer)


def _end_texts(tokenizer: ChatTokenizer) -> Mapping[int, str]:
    """The end-of-turn tokens as text; an id beyond the vocabulary has none."""
    texts = {token: tokenizer.decode([token]) for token in tokenizer.eos_token_ids}
    return {token: text for token, text in texts.items() if text}


def _reader(tokenizer: ChatTokenizer) -> _Reader:
    inner: Any = getattr(tokenizer, "_tokenizer", tokenizer)
    source = inner.chat_template
    known = source if isinstance(source, str) else repr(source)
    return _made(tokenizer, known, frozenset(tokenizer.eos_token_ids))


@lru_cache(maxsize=4)
def _made(tokenizer: ChatTokenizer, _source: str, _ends: frozenset[int]) -> _Reader:
    """A reader for as long as the tokenizer has this template and these ends."""
    return _Reader(tokenizer)


def _everything(example: Example) -> Example:
    return replace(example, spans=((1, len(example.tokens)),))


def _plain(conversation: Conversation, tokenizer: ChatTokenizer) -> Example:
    """A plain text: all of it is learned, and that it ends."""
    text, ends = conversation.text, tokenizer.eos_token_ids
    if text.rstrip().endswith(tuple(_end_texts(tokenizer).values())):
        text = text.rstrip()
    tokens = tokenizer.encode(text, add_special_tokens=True)
    if tokens[:1] == tokens[1:2] == [tokenizer.bos_token_id]:
        tokens = tokens[1:]
    while len(tokens) > 1 and tokens[-1] in ends and tokens[-2] in ends:
        tokens = tokens[:-1]
    if not tokens or tokens[-1] not in ends:
        tokens = [*tokens, tokenizer.eos_token_id]
    if len(tokens) < 2:
        raise DataError("The text is a single token.", where=conversation.where)
    return _example(conversation, tokens, [(1, len(tokens))], conversation.text)


def _example(
    row: Conversation, tokens: Sequence[int], spans: Sequence[Span], answer: str
) -> Example:
    return Example(
        tuple(tokens),
        tuple(spans),
        row.where,
        answer,
        row.id,
        row.tags,
        row.weight,
        row.choices,
        row.sha256,
    )
