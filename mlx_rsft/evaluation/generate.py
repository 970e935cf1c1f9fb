"""Text from a model: many prompts greedily at once, or one sampled answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.data.conversation import Example

BATCH_ROWS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: Without the end-of-turn token.
        tokens: Likewise.
        ended: Whether it ended its turn, rather than being cut.
    """

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        samples: Answers per row.
        temperature: Above 0; 1 is the model's own distribution.
        seed: Fixes them, for the same rows in the same order.
    """

    samples: int = 8
    temperature: float = 0.7
    seed: int = 0


def answers(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    report: Callable[[int], None] | None = None,
    agreed: Sequence[int] = (),
) -> list[Answer]:
    """The greedy answer to each example's last prompt.

    Args:
        model: With or without an adapter.
        tokenizer: Turns its tokens into text.
        examples: Rows; of what is demonstrated only that which is agreed on is used.
        max_tokens: Of an answer, at most, its end included.
        report: Is told rows done.
        agreed: How many leading tokens of each demonstrated turn are known to be the
            model's first choice; greedy decoding would write them, so it begins behind.
    """
    known = agreed or [0] * len(examples)
    begun = [
        list(example.tokens[example.spans[-1][0] :][: min(count, max_tokens)])
        for example, count in zip(examples, known, strict=True)
    ]
    ends = tokenizer.eos_token_ids
    todo = [
        place
        for place, tokens in enumerate(begun)
        if len(tokens) < max_tokens and not ends & set(tokens)
    ]
    if report:
        report(len(examples) - len(todo))
    for first in range(0, len(todo), BATCH_ROWS):
        group = todo[first : first + BATCH_ROWS]
        prompts = [[*examples[place].prompt, *begun[place]] for place in group]
        left = [max_tokens - len(begun[place]) for place in group]
        written = _written(model, tokenizer, prompts, left)
        for place, tokens in zip(group, written, strict=True):
            begun[place] += tokens
        if report:
            report(len(group))
    return [_answer(tokenizer, tokens, max_tokens) for tokens in begun]


def samples(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    sampling: Sampling,
) -> list[list[Answer]]:
    """Answers to each example's last prompt, drawn at random."""
    from mlx_lm.sample_utils import make_sampler

    sampler = make_sampler(temp=sampling.temperature)
    drawn: list[list[Answer]] = []
    rows = max(1, BATCH_ROWS // sampling.samples)
    for begin in range(0, len(examples), rows):
        group = examples[begin : begin + rows]
        prompts = [list(e.prompt) for e in group for _ in range(sampling.samples)]
        mx.random.seed(sampling.seed << 32 | begin)
        written = _batch(model, tokenizer, prompts, max_tokens, sampler=sampler)
        starts = range(0, len(written), sampling.samples)
        drawn += [written[start : start + sampling.samples] for start in starts]
    return drawn


def at_once(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    temperature: float,
    seed: int,
) -> list[Answer]:
    """One answer to each of up to ``BATCH_ROWS`` prompts; temperature 0 is greedy."""
    from mlx_lm.sample_utils import make_sampler

    mx.random.seed(seed)
    sampler = make_sampler(temp=temperature)
    asked = [list(prompt) for prompt in prompts]
    return _batch(model, tokenizer, asked, max_tokens, sampler=sampler)


def _batch(
    model: nn.Module,
    tokenizer: Any,
    prompts: list[list[int]],
    max_tokens: int,
    **options: Any,
) -> list[Answer]:
    most = [max_tokens] * len(prompts)
    written = _written(model, tokenizer, prompts, most, **options)
    return [_answer(tokenizer, tokens, max_tokens) for tokens in written]


def _written(
    model: nn.Module,
    tokenizer: Any,
    prompts: list[list[int]],
    max_tokens: list[int],
    **options: Any,
) -> list[list[int]]:
    """What follows each prompt, without the token that ends a turn."""
    from mlx_lm.generate import batch_generate

    made = batch_generate(
        model,
        tokenizer,
        prompts,
        max_tokens=max_tokens,
        return_token_ids=True,
        **options,
    )
    return made.token_ids or []


def _answer(tokenizer: Any, tokens: list[int], max_tokens: int) -> Answer:
    """Only an end of turn, which is no part of it, ends an answer early."""
    ends = tokenizer.eos_token_ids
    said = list(itertools.takewhile(lambda token: token not in ends, tokens))
    return Answer(tokenizer.decode(said), len(said), len(said) < max_tokens)


def stream(
    model: nn.Module,
    tokenizer: Any,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[str]:
    """One answer in pieces; temperature 0 is greedy."""
    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    mx.random.seed(seed)
    sampler = make_sampler(temp=temperature)
    for piece in stream_generate(
        model, tokenizer, list(prompt), max_tokens=max_tokens, sampler=sampler
    ):
        yield piece.text
