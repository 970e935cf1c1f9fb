"""One forward pass over demonstrations, and its facts token by token. N supervised tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_rsft import lanes, loss, shards
from mlx_rsft.data.batching import collate, micro_batches
from mlx_rsft.data.conversation import Example
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives.tokens import Known, TokenStats

TOKEN_BUDGET = 2048


class Facts(NamedTuple):
    """What is found of some examples, whose tokens follow one another.

    Attributes:
        places: Of the examples among all.
        hits_N: Whether the token was the model's first choice.
        named: Log-probability as ``logp``, and what else was asked for; each (N,).
    """

    places: Sequence[int]
    hits_N: np.ndarray
    named: dict[str, np.ndarray]


def batches(
    split: SplitModel,
    examples: Sequence[Example],
    wanted: Sequence[str] = (),
    report: Callable[[int], None] | None = None,
    trunk: Trunk | None = None,
) -> Iterator[Facts]:
    """The pass, in batches of rows of similar length.

    Args:
        split: The model.
        examples: Rows with what is demonstrated in them.
        wanted: Facts beside the log-probability, of ``HEAD_FACTS``.
        report: Is told the rows done since it was last told.
        trunk: Knows what the model's frozen blocks make of a row.
    """
    lengths = [len(row.tokens) for row in examples]
    for places in micro_batches(lengths, TOKEN_BUDGET, lanes.count()):
        group = [examples[place] for place in places]
        batch = collate(group)
        rows = [row.tokens for row in group]
        states = trunk.states(rows, batch.tokens_BT.shape[1]) if trunk else None
        hidden_ND = shards.supervised(split, batch, states)
        stats, first = loss.token_stats(split.head, hidden_ND, batch.targets_N, wanted)
        named = {name: np.array(getattr(stats, name)) for name in ("logp", *wanted)}
        yield Facts(places, np.array(first == batch.targets_N), named)
        if report:
            report(len(group))


def read(
    split: SplitModel,
    examples: Sequence[Example],
    wanted: Sequence[str] = (),
    report: Callable[[int], None] | None = None,
    trunk: Trunk | None = None,
) -> TokenStats:
    """Facts of every supervised token, in the order of the examples; as ``batches``."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for facts in batches(split, examples, wanted, report, trunk):
        counts = [examples[place].num_supervised for place in facts.places]
        ends = np.cumsum(counts)[:-1]
        parts = {name: np.split(values, ends) for name, values in facts.named.items()}
        for number, place in enumerate(facts.places):
            found[place] = {name: parts[name][number] for name in parts}
    rows = [found[place] for place in range(len(examples))]
    names = ("logp", *wanted)
    joined = {name: mx.array(np.concatenate([r[name] for r in rows])) for name in names}
    logp = joined.pop("logp")
    return TokenStats(logp, known=Known(), **joined)
