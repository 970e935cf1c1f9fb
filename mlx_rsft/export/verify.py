"""Is what was exported the same as what was trained? Its readers are asked.

The live model is asked first and for good: its log-probabilities at every place of some
rows. Then each reader loads its files and is asked the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from mlx_rsft.data import templates
from mlx_rsft.data.conversation import Example
from mlx_rsft.export import gaps, prompts, rounding
from mlx_rsft.export.dense import bare, likeliest, log_probs
from mlx_rsft.export.gaps import Gaps, Questions
from mlx_rsft.export.live import ROUNDS_EMBEDDING, Live, as_stored
from mlx_rsft.export.product import Product
from mlx_rsft.export.readers import READERS
from mlx_rsft.export.reading import DIVERGENCE, LARGEST, MEAN, Limit, Row
from mlx_rsft.models import stored

PROMPTS = (
    "The spindle is noisy at 3000 rpm and the housing is warm.",
    "What is the capital of France?",
    "def mean(values):",
    "検査で傷が見つかりました。",
)
ANSWER_TOKENS = 16
MOST_ROWS = 8
MOST_TOKENS = 512
UNIT = "nats"
LIKE_WITH_LIKE = "its embedding factor was rounded as mlx-lm rounds it"


OVER_MEAN = 10
"""Where a mean is judged, the largest difference may be this many times its limit: in
16 bits it is 8 to 16 times the mean itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader made of a product.

    Attributes:
        reader: The key in ``READERS``; None if nobody was asked.
        verified: None if the reader could not be asked, see ``note``.
        gaps: How far it is from the live model; None if it was not asked.
        limit: What rounding explains.
    """

    reader: str | None
    verified: bool | None
    gaps: Gaps | None = None
    limit: Limit | None = None
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """Its part of an entry of ``export.json``; None for what is no number."""
        found, limit = self.gaps, self.limit
        return {
            "reader": self.reader,
            "verified": self.verified,
            "max_difference": _finite(found and found.largest),
            "mean_difference": _finite(found and found.mean),
            "divergence": _finite(found and found.divergence),
            "lost": _finite(found and found.lost),
            "judged": limit and limit.of,
            "tolerance": limit and limit.nats,
            "unit": UNIT,
            "greedy_agreement": found and found.greedy_agreement,
            "places": found.places if found else 0,
            "note": self.note,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def questions(live: Live, examples: Sequence[Example] = ()) -> Questions:
    """Ask the live model: prompts that it answers itself, texts, and rows of the user."""
    rows = [_answered(live, prompt) for prompt in PROMPTS]
    rows += prompts.rows(live.tokenizer)
    short = [e for e in examples if len(e.prompt) + ANSWER_TOKENS <= MOST_TOKENS]
    for example in short[:MOST_ROWS]:
        start, stop = example.spans[-1]
        end = min(stop, start + ANSWER_TOKENS)
        rows.append(Row(tuple(example.tokens[:end]), start, greedy=False, own=True))
    return of_rows(live, rows)


def of_rows(live: Live, rows: Sequence[Row]) -> Questions:
    """Ask the live model, and the base model, about rows."""
    expected = [log_probs(live.model, row) for row in rows]
    with rounding.without(live) as base:
        effect = gaps.effect(rows, expected, lambda row: log_probs(base, row))
    return Questions(rows, expected, effect)


def _answered(live: Live, prompt: str) -> Row:
    from mlx_lm.generate import generate_step

    tokenizer = live.tokenizer
    if tokenizer.has_chat_template:
        asked = [
            int(token) for token in templates.prompt(tokenizer, prompt, thinking=False)
        ]
    else:
        asked = [int(token) for token in tokenizer.encode(prompt)]
    answer: list[int] = []
    steps = generate_step(mx.array(asked), live.model, max_tokens=ANSWER_TOKENS)
    for token, _ in steps:
        answer.append(int(token))
        if int(token) in tokenizer.eos_token_ids:
            break
    return Row((*asked, *answer), len(asked), greedy=True)


def verify(live: Live, product: Product, asked: Questions, reader: str) -> Verdict:
    """Let one reader load a product, and hold its answers against the live model's."""
    who = READERS[reader]
    if why := who.missing(live, product):
        return Verdict(reader, None, note=f"skipped: {why}")
    limit = who.limit(live, product)
    notes: list[str] = []
    chosen = None
    if product.meant:
        asked, chosen = _meant(live, product, asked)
        notes.append(_told(chosen))
    if who.rounded and live.model_type in ROUNDS_EMBEDDING:
        notes.append(LIKE_WITH_LIKE)
    with who.open(live, product) as opened:
        found = gaps.measure(opened.likely, asked)
    holds = fits(found, limit)
    if chosen:
        found = replace(found, lost=chosen.lost)
        holds = holds and rounding.outlives(chosen.lost)
    return Verdict(reader, holds, found, limit, "; ".join(notes))


def fits(found: Gaps, limit: Limit) -> bool:
    """Whether rounding explains what was found; what is no number it does not."""
    judged = {
        LARGEST: found.largest <= limit.nats,
        MEAN: found.mean <= limit.nats and found.largest <= OVER_MEAN * limit.nats,
        DIVERGENCE: found.divergence <= limit.nats and rounding.outlives(found.lost),
    }
    return found.places > 0 and judged[limit.of]


def _meant(live: Live, product: Product, asked: Questions) -> tuple[Questions, Gaps]:
    """The same rows, answered by the model with the factors that a product holds.

    And how far that is from the live model.
    """
    with bare(live) as model:
        stored.put_on(model, as_stored(product.meant), product.path)
        found = [log_probs(model.eval(), row) for row in asked.rows]
    by_row = dict(zip(asked.rows, found, strict=True))

    def answers(row: Row) -> Iterator[tuple[int, Mapping[int, float]]]:
        return likeliest(row, by_row[row])

    return Questions(asked.rows, found), gaps.measure(answers, asked)


def _told(chosen: Gaps) -> str:
    lost = "" if chosen.lost is None else f", {chosen.lost:.1%} of its effect"
    return f"it is {chosen.largest:.2g} {UNIT} from the live model{lost}, by choice"
