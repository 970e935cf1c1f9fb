"""One forward pass over demonstrations: how likely, and would greedy decoding agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.tokenwise import batches
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk


@dataclass(frozen=True, slots=True)
class RowScore:
    """One row under teacher forcing.

    Attributes:
        nll: Summed over its supervised tokens, nats.
        probability: Of its supervised tokens, summed.
        tokens: Supervised tokens.
        correct: Those that were the model's first choice.
        exact: Whether the first choice was right throughout the last turn, its end
            included: greedy decoding would then write exactly this answer.
        entropy: Of the model's distribution at its supervised tokens, summed, nats;
            NaN unless asked for.
        agreed: Leading tokens of the last turn that were all the first choice.
    """

    nll: float
    probability: float
    tokens: int
    correct: int
    exact: bool
    entropy: float = math.nan
    agreed: int = 0


def score(
    split: SplitModel,
    examples: Sequence[Example],
    report: Callable[[int], None] | None = None,
    trunk: Trunk | None = None,
    *,
    entropy: bool = False,
) -> list[RowScore]:
    """Score every example, in order.

    Args:
        split: The model.
        examples: Rows with what is demonstrated in them.
        report: Is told the rows done since it was last told.
        trunk: Knows what the model's frozen blocks make of a row.
        entropy: Ask for it too; costs a pass over the logits.
    """
    wanted = ("entropy",) if entropy else ()
    scores: dict[int, RowScore] = {}
    for places, hits, facts in batches(split, examples, wanted, report, trunk):
        group = [examples[place] for place in places]
        rows = _rows(group, facts["logp"], hits, facts.get("entropy"))
        scores.update(zip(places, rows, strict=True))
    return [scores[index] for index in range(len(examples))]


def _rows(
    group: Sequence[Example],
    logp: np.ndarray,
    hits: np.ndarray,
    entropy: np.ndarray | None,
) -> Iterator[RowScore]:
    begin = 0
    for example in group:
        end = begin + example.num_supervised
        start, stop = example.spans[-1]
        last = hits[end - (stop - start) : end]
        yield RowScore(
            nll=float(-logp[begin:end].sum(dtype=np.float64)),
            probability=float(np.exp(logp[begin:end]).sum(dtype=np.float64)),
            tokens=end - begin,
            correct=int(hits[begin:end].sum()),
            exact=bool(last.all()),
            entropy=math.nan if entropy is None else float(entropy[begin:end].sum()),
            agreed=int(np.cumprod(last).sum()),
        )
        begin = end
