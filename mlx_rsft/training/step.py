"""One optimizer step: sums over micro-batches, one division, one update.

The division happens once for the whole step, so one batch of eight rows and four
micro-batches of two give the same update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from mlx_rsft import lanes, loss, shards
from mlx_rsft.data.batching import collate, micro_batches, shares
from mlx_rsft.data.conversation import Batch, Example
from mlx_rsft.loss import LossSums, Recipe, Totals
from mlx_rsft.models.passes import Passes
from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.objectives import Known, Objective, TokenStats
from mlx_rsft.objectives.composition import fixed_weight
from mlx_rsft.objectives.tokens import STEP
from mlx_rsft.ranks import ALONE, Ranks
from mlx_rsft.training.gradient import Piece, gradient
from mlx_rsft.training.known import beforehand
from mlx_rsft.training.references import References


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What a step computed.

    Attributes:
        totals: Sums over its supervised tokens.
        divisor: What the objective was divided by.
        grad_norm: Global norm of the gradient before clipping.
        applied: False if loss or gradient was not finite and nothing was updated.
        num_tokens: Real tokens that went through the model.
        of_rows: Of each row its mean weight, its push and its mean probability, as in
            ``RowWeights``.
    """

    totals: Totals
    divisor: float
    grad_norm: float
    applied: bool
    num_tokens: int
    of_rows: tuple[list[float], list[float], list[float]]


@dataclass(slots=True)
class Stepper:
    """Everything an optimizer step needs beside its rows.

    Attributes:
        kept: Token ids that the objective leaves at weight 1.
        trunk: Knows what the frozen blocks make of a row, so that they are run once.
        ranks: Share the rows of each step; sums and gradients are added over them.
    """

    split: SplitModel
    objective: Objective
    optimizer: optim.Optimizer
    references: References
    token_budget: int
    clip_norm: float
    kept: frozenset[int] = frozenset()
    trunk: Trunk | None = None
    ranks: Ranks = ALONE
    _passes: Passes = field(init=False)

    def __post_init__(self) -> None:
        self._passes = Passes(self.split)

    def step(self, examples: Sequence[Example], strength: float = 1.0) -> StepFacts:
        """Train on one window of examples; leaves the model alone if not finite.

        Args:
            examples: The rows of the step.
            strength: How far the objective is switched in, 0 (plain SFT) to 1.
        """
        pieces = self.pieces(examples, strength)
        sums, grads = gradient(self._passes, pieces, self._recipe())
        sums, grads = _summed(self.ranks.for_rows(len(examples)), sums, grads)
        totals = sums.totals()
        divisor = self._divisor(totals, examples)
        mean = _scaled(grads, 1 / divisor)
        norm = _global_norm(mean)
        applied = math.isfinite(norm) and math.isfinite(totals.objective)
        if applied:
            if 0 < self.clip_norm < norm:
                mean = _scaled(mean, self.clip_norm / norm)
            self.optimizer.update(self.split.model, mean)
            mx.eval(self.split.model.trainable_parameters(), self.optimizer.state)
        num_tokens = sum(len(example.tokens) for example in examples)
        rows = _of_rows(sums, examples, self.objective.composition.normalise)
        return StepFacts(totals, divisor, norm, applied, num_tokens, rows)

    def pieces(self, examples: Sequence[Example], strength: float) -> list[Piece]:
        """This rank's micro-batches, with weights where those need the whole step."""
        pieces: list[Piece] = []
        ranks = self.ranks.for_rows(len(examples))
        dealt = shares([len(example.tokens) for example in examples], ranks.size)
        own = dealt[ranks.rank]
        lengths = [len(examples[row].tokens) for row in own]
        for places in micro_batches(lengths, self.token_budget, lanes.count()):
            rows = [own[place] for place in places]
            group = [examples[row] for row in rows]
            batch = collate(group)
            states = self._states(group, batch)
            known = beforehand(group, rows, self.objective.composition, self.kept)
            known = replace(known, num_rows=len(examples), strength=strength)
            known = self._with_references(known, group, batch, states)
            hidden = self.references.base_hidden(batch, states)
            pieces.append(Piece(batch, known, hidden, states))
        by_rank = [[examples[row] for row in share] for share in dealt]
        self.references.share(by_rank, ranks)
        if STEP not in self.objective.needs:
            return pieces
        return self._weighed(pieces, by_rank, ranks)

    def _states(self, group: Sequence[Example], batch: Batch) -> TrunkStates | None:
        if self.trunk is None:
            return None
        rows = [example.tokens for example in group]
        return self.trunk.states(rows, batch.tokens_BT.shape[1])

    def _with_references(
        self,
        known: Known,
        group: Sequence[Example],
        batch: Batch,
        states: TrunkStates | None,
    ) -> Known:
        return replace(
            known,
            reference_logp=self.references.base_logp(group, batch, states),
            lagged_logp=self.references.lagged_logp(batch, states),
        )

    def _weighed(
        self, pieces: list[Piece], by_rank: Sequence[Sequence[Example]], ranks: Ranks
    ) -> list[Piece]:
        """Weights from the tokens of all pieces at once, by a pass without gradient."""
        seen: list[TokenStats] = []
        for piece in pieces:
            hidden_ND = shards.supervised(self.split, piece.batch, piece.trunk)
            facts = self.objective.head_facts
            stats, _ = loss.token_stats(
                self.split.head, hidden_ND, piece.batch.targets_N, facts
            )
            seen.append(replace(stats, known=piece.known))
        counts = [sum(row.num_supervised for row in rows) for rows in by_rank]
        weight = self.objective.weight(_whole(_joined(seen), counts, ranks))
        weighed: list[Piece] = []
        begin = sum(counts[: ranks.rank])
        for piece in pieces:
            end = begin + piece.batch.targets_N.size
            known = replace(piece.known, weight=weight[begin:end])
            weighed.append(replace(piece, known=known))
            begin = end
        return weighed

    def _recipe(self) -> Recipe:
        objective = self.objective
        if STEP in objective.needs:
            return Recipe(fixed_weight, (), objective.pulls)
        return Recipe(objective.weight, objective.head_facts, objective.pulls)

    def _divisor(self, totals: Totals, examples: Sequence[Example]) -> float:
        chosen = {
            "token": sum(row.weight * row.num_supervised for row in examples),
            "weight": totals.weight,
            "sequence": sum(row.weight for row in examples),
        }[self.objective.composition.normalise]
        return chosen if chosen > 0 else 1.0


def _of_rows(
    sums: LossSums, examples: Sequence[Example], normalise: str
) -> tuple[list[float], list[float], list[float]]:
    """From sums over each row's tokens to what the row weighed, row weights taken out."""
    weight, push, p = np.array(sums.rows_3R, np.float64)
    tokens = np.array([row.num_supervised for row in examples])
    scale = np.array([row.weight for row in examples])
    if normalise == "sequence":
        scale = scale / tokens
    return (weight / scale / tokens).tolist(), push.tolist(), (p / tokens).tolist()


def _joined(parts: Sequence[TokenStats]) -> TokenStats:
    """The facts of all parts as one; they are parts of the same step."""
    first = parts[0].known
    known = {
        name: mx.concatenate([part.known.arrays()[name] for part in parts])
        for name in first.arrays()
    }
    return TokenStats(
        mx.concatenate([part.logp for part in parts]), known=replace(first, **known)
    )


def _whole(own: TokenStats, counts: Sequence[int], ranks: Ranks) -> TokenStats:
    """The facts of the tokens of all ranks, of which each has so many."""
    known = own.known.arrays()
    logp, *others = ranks.joined([own.logp, *known.values()], counts)
    held = dict(zip(known, others, strict=True))
    return TokenStats(logp, known=replace(own.known, **held))


def _summed(ranks: Ranks, sums: LossSums, grads: Any) -> tuple[LossSums, Any]:
    """Sums and gradients of all ranks together."""
    if ranks.size == 1:
        return sums, grads
    leaves = dict(tree_flatten(grads))  # pyright: ignore
    total = ranks.summed([*sums, *leaves.values()])
    added = dict(zip(leaves, total[len(sums) :], strict=True))

    def of(name: str, _: mx.array) -> mx.array:
        return added[name]

    return LossSums._make(total[: len(sums)]), tree_map_with_path(of, grads)


def _scaled(grads: Any, factor: float) -> Any:
    def scale(grad: mx.array) -> mx.array:
        return grad * factor

    return tree_map(scale, grads)


def _global_norm(grads: Any) -> float:
    leaves: list[tuple[str, mx.array]] = tree_flatten(grads)  # pyright: ignore
    squares = [mx.square(grad.astype(mx.float32)).sum() for _, grad in leaves]
    return math.sqrt(loss.number(mx.stack(squares).sum()))
