"""Is what was exported the same as what was trained? Its readers are asked.

The live model is asked first and for good: its log-probabilities at every place of some
rows. Then each reader loads its files and is asked the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_rsft.data import templates
from mlx_rsft.data.conversation import Example
from mlx_rsft.export.dense import bare, likeliest, log_probs
from mlx_rsft.export.live import ROUNDS_EMBEDDING, Live, as_stored
from mlx_rsft.export.product import Product
from mlx_rsft.export.readers import READERS
from mlx_rsft.export.reading import Opened, Row
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader made of a product.

    Attributes:
        reader: The key in ``READERS``; None if nobody was asked.
        verified: None if the reader could not be asked, see ``note``.
        max_difference: Largest difference of the log-probabilities of likely tokens
            from the live model's, nats.
        tolerance: The largest that rounding explains.
        greedy_agreement: Share of the live model's greedy tokens that it writes too.
        places: How many places it was asked about.
    """

    reader: str | None
    verified: bool | None
    max_difference: float | None = None
    tolerance: float | None = None
    greedy_agreement: float | None = None
    places: int = 0
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """Its part of an entry of ``export.json``."""
        return {
            "reader": self.reader,
            "verified": self.verified,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "unit": UNIT,
            "greedy_agreement": self.greedy_agreement,
            "places": self.places,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows, and the live model's log-probabilities ``[places, V]`` of each."""

    rows: Sequence[Row]
    expected: Sequence[NDArray[np.float32]]


def questions(live: Live, examples: Sequence[Example] = ()) -> Questions:
    """Ask the live model: bundled prompts that it answers itself, and rows of the user."""
    rows = [_answered(live, prompt) for prompt in PROMPTS]
    short = [e for e in examples if len(e.prompt) + ANSWER_TOKENS <= MOST_TOKENS]
    for example in short[:MOST_ROWS]:
        start, stop = example.spans[-1]
        end = min(stop, start + ANSWER_TOKENS)
        rows.append(Row(tuple(example.tokens[:end]), start, greedy=False))
    return Questions(rows, [log_probs(live.model, row) for row in rows])


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
    tolerance = who.tolerance(live, product)
    chosen = ""
    if product.meant:
        meant = _meant(live, product, asked)
        chosen = f"it is {away(meant, asked):.2g} {UNIT} from the live model, by choice"
        asked = meant
    if who.rounded and live.model_type in ROUNDS_EMBEDDING:
        chosen = "; ".join([*filter(None, [chosen]), LIKE_WITH_LIKE])
    with who.open(live, product) as opened:
        return replace(_compared(opened, asked, reader, tolerance), note=chosen)


def _meant(live: Live, product: Product, asked: Questions) -> Questions:
    """The same rows, answered by the model with the factors that a product holds."""
    with bare(live) as model:
        stored.put_on(model, as_stored(product.meant), product.path)
        found = [log_probs(model.eval(), row) for row in asked.rows]
    return Questions(asked.rows, found)


def away(meant: Questions, asked: Questions) -> float:
    """How far two answers are apart on the tokens that are likely in the second."""
    pairs = zip(asked.rows, meant.expected, asked.expected, strict=True)
    return max(
        _apart(seen, other[place - row.start])
        for row, other, live in pairs
        for place, seen in likeliest(row, live)
    )


def _compared(
    opened: Opened, asked: Questions, reader: str, tolerance: float
) -> Verdict:
    worst, places, greedy, same = 0.0, 0, 0, 0
    for row, expected in zip(asked.rows, asked.expected, strict=True):
        for place, seen in opened.likely(row):
            places += 1
            worst = max(worst, _apart(seen, expected[place - row.start]))
            if row.greedy:
                same += max(seen, key=lambda token: seen[token]) == row.tokens[place]
        greedy += len(row.tokens) - row.start if row.greedy else 0
    fits = bool(worst <= tolerance) and places > 0  # NaN does not
    agreed = same / greedy if greedy else None  # it may end each answer at once
    return Verdict(reader, fits, worst, tolerance, agreed, places)


def _apart(seen: Mapping[int, float], expected: NDArray[np.float32]) -> float:
    """The largest difference at one place; infinite if any is not a number."""
    tokens = list(seen)
    apart = np.abs(np.array([seen[t] for t in tokens]) - expected[tokens]).max()
    return float(apart) if np.isfinite(apart) else float("inf")
