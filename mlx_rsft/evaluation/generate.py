"""Text from a model: many prompts greedily at once, or one sampled answer."""

from __future__ import annotations

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
) -> list[Answer]:
    """The greedy answer to each example's last prompt, at most ``max_tokens`` long."""
    written: list[Answer] = []
    for begin in range(0, len(examples), BATCH_ROWS):
        group = examples[begin : begin + BATCH_ROWS]
        prompts = [list(example.prompt) for example in group]
        written += _batch(model, tokenizer, prompts, max_tokens)
        if report:
            report(len(group))
    return written


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
    from mlx_lm.generate import batch_generate

    made = batch_generate(
        model,
        tokenizer,
        prompts,
        max_tokens=max_tokens,
        return_token_ids=True,
        **options,
    )
    # Only an end-of-turn token, which is left out, ends an answer early.
    return [
        Answer(text, len(ids), len(ids) < max_tokens)
        for text, ids in zip(made.texts, made.token_ids or (), strict=True)
    ]


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
