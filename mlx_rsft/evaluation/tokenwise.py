"""One forward pass over demonstrations, kept token by token. N supervised tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mlx_rsft import loss
from mlx_rsft.data.batching import collate, micro_batches
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.likelihood import TOKEN_BUDGET
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives.tokens import TokenStats


def read(
    split: SplitModel,
    examples: Sequence[Example],
    wanted: Sequence[str] = (),
    report: Callable[[int], None] | None = None,
) -> TokenStats:
    """Facts of every supervised token, in the order of the examples.

    Args:
        split: The model.
        examples: Rows with what is demonstrated in them.
        wanted: Facts beside the log-probability, of ``HEAD_FACTS``.
        report: Is told the rows done since it was last told.
    """
    names = ("logp", *wanted)
    found: dict[int, dict[str, np.ndarray]] = {}
    for places in micro_batches([len(row.tokens) for row in examples], TOKEN_BUDGET):
        group = [examples[place] for place in places]
        batch = collate(group)
        hidden_ND = split.supervised(batch.tokens_BT, batch.rows_N)
        stats, _ = loss.token_stats(split.head, hidden_ND, batch.targets_N, wanted)
        facts = {name: np.array(getattr(stats, name)) for name in names}
        ends = np.cumsum([row.num_supervised for row in group])[:-1]
        parts = {name: np.split(values, ends) for name, values in facts.items()}
        for number, place in enumerate(places):
            found[place] = {name: parts[name][number] for name in names}
        if report:
            report(len(group))
    rows = [found[place] for place in range(len(examples))]
    joined = {name: mx.array(np.concatenate([r[name] for r in rows])) for name in names}
    logp = joined.pop("logp")
    return TokenStats(
        logp,
        joined.get("entropy"),
        joined.get("collision"),
        joined.get("top_entropy"),
    )
