"""Text from a model: many prompts greedily at once, or one sampled answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft.data.conversation import Example

BATCH_ROWS = 32


def answers(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    report: Callable[[int], None] | None = None,
) -> list[str]:
    """The greedy answer to each example's last prompt, at most ``max_tokens`` long."""
    from mlx_lm.generate import batch_generate

    written: list[str] = []
    for begin in range(0, len(examples), BATCH_ROWS):
        group = examples[begin : begin + BATCH_ROWS]
        prompts = [list(example.prompt) for example in group]
        written += batch_generate(
            model, tokenizer, prompts, max_tokens=max_tokens
        ).texts
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
