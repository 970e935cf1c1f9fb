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


def answers(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    report: Callable[[int], None] | None = None,
) -> list[Answer]:
    """The greedy answer to each example's last prompt, at most ``max_tokens`` long."""
    from mlx_lm.generate import batch_generate

    written: list[Answer] = []
    for begin in range(0, len(examples), BATCH_ROWS):
        group = examples[begin : begin + BATCH_ROWS]
        prompts = [list(example.prompt) for example in group]
        made = batch_generate(
            model, tokenizer, prompts, max_tokens=max_tokens, return_token_ids=True
        )
        for text, ids in zip(made.texts, made.token_ids or (), strict=True):
            # Only an end-of-turn token, which is left out, ends an answer early.
            written.append(Answer(text, len(ids), len(ids) < max_tokens))
        if report:
            report(len(group))
    return written


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
