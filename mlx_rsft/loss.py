"""From hidden states of supervised positions to sums of loss, and their gradient.

One kernel, three engines. ``dense`` holds all logits at once and lets MLX differentiate:
the oracle. ``fused`` walks over the rows in chunks and makes the gradient on the way, for
a head that is not trained. ``checkpointed`` walks as well and recomputes each chunk in the
backward pass, for a head that is trained. Sums and counts travel; whoever has them all
divides once. Shapes: N supervised positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_rsft.objectives.tokens import (
    TOP,
    Known,
    Pull,
    TokenStats,
    TokenWeight,
)

Head = Callable[[mx.array], mx.array]
"""Hidden states (N, D) to logits (N, V), soft caps and scaling included."""

CHUNK_BYTES = 64 << 20
"""Budget of one chunk's float32 logits."""

NUM_BINS = 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an engine must know of an objective.

    Attributes:
        weight: From token facts to weights; held constant by the engine.
        head_facts: What the weight wants from the head beside the log-probability.
        pulls: What draws the whole distribution, and how strongly.
    """

    weight: TokenWeight
    head_facts: tuple[str, ...] = ()
    pulls: tuple[Pull, ...] = ()

    @property
    def needs_reference(self) -> bool:
        """Whether the base model's hidden states must come along."""
        return any(pull.needs_reference for pull in self.pulls)


class Totals(NamedTuple):
    """The sums of ``LossSums`` as plain numbers."""

    objective: float
    nll: float
    probability: float
    weight: float
    weight_squared: float
    tokens: float
    histogram: tuple[int, ...]

    @property
    def effective_share(self) -> float:
        """Effective sample size of the weights as a share of the tokens, 0 to 1."""
        spread = self.weight_squared * self.tokens
        return self.weight * self.weight / spread if spread else 0.0


class LossSums(NamedTuple):
    """Sums over supervised tokens; float32 scalars, losses in nats.

    Attributes:
        objective: Weighted loss and pulls; its gradient trains.
        nll: True negative log-likelihood.
        probability: Probability of the demonstrated token.
        weight: Weight of the objective, scale included.
        weight_squared: Its square.
        tokens: How many tokens were summed.
        histogram: (20,) tokens by probability, in equal bins from 0 to 1.
    """

    objective: mx.array
    nll: mx.array
    probability: mx.array
    weight: mx.array
    weight_squared: mx.array
    tokens: mx.array
    histogram: mx.array

    def __add__(self, other: tuple[mx.array, ...]) -> LossSums:  # type: ignore[override]
        return LossSums._make(a + b for a, b in zip(self, other, strict=True))

    def totals(self) -> Totals:
        """The sums as numbers; waits for them to be computed."""
        counts = np.array(self.histogram).astype(int)
        sums = [number(value) for value in self[:-1]]
        return Totals._make([*sums, tuple(counts.tolist())])


def number(scalar: mx.array) -> float:
    """A real scalar as a Python number; waits for it to be computed."""
    value = scalar.item()
    assert not isinstance(value, complex)
    return float(value)


def no_tokens(hidden_ND: mx.array) -> LossSums:
    """The sums over nothing: zero, and with a zero gradient."""
    zero = mx.zeros(())
    through = _wide(hidden_ND).sum() * 0
    return LossSums(through, zero, zero, zero, zero, zero, mx.zeros((NUM_BINS,)))


def _wide(values: mx.array) -> mx.array:
    """In float32 whatever they came in; float64 stays, for comparisons."""
    return values if values.dtype == mx.float64 else values.astype(mx.float32)


class _Rows(NamedTuple):
    """One pass over the logits of some rows, all float32.

    ``p_NV`` costs one exponential per logit; the log-sum-exp follows from its largest
    entry, ``z_max - log(p_max)``, without a second one.
    """

    logits_NV: mx.array
    p_NV: mx.array
    lse_N: mx.array
    logp_N: mx.array


def _read(logits_NV: mx.array, targets_N: mx.array) -> _Rows:
    wide = _wide(logits_NV)
    p_NV = mx.softmax(wide, axis=-1)
    lse_N = wide.max(axis=-1) - mx.log(p_NV.max(axis=-1))
    chosen_N = mx.take_along_axis(wide, targets_N[:, None], axis=-1)[:, 0]
    return _Rows(wide, p_NV, lse_N, mx.minimum(chosen_N - lse_N, 0))


def _facts(rows: _Rows, wanted: Sequence[str], known: Known) -> TokenStats:
    logits_NV, p_NV, lse_N, logp_N = (mx.stop_gradient(part) for part in rows)
    found: dict[str, mx.array] = {}
    if "entropy" in wanted:
        found["entropy"] = lse_N - (p_NV * logits_NV).sum(axis=-1)
    if "collision" in wanted:
        found["collision"] = mx.square(p_NV).sum(axis=-1)
    if "top_entropy" in wanted:
        top = mx.topk(logits_NV, min(TOP, logits_NV.shape[-1]), axis=-1)
        share = mx.softmax(top, axis=-1)
        spread = mx.logsumexp(top, axis=-1) - (share * top).sum(axis=-1)
        found["top_entropy"] = spread
    return TokenStats(logp_N, known=known, **found)


def _summed(
    objective: mx.array, logp_N: mx.array, weight_N: mx.array, p_N: mx.array
) -> LossSums:
    bins = mx.minimum(mx.floor(p_N * NUM_BINS), NUM_BINS - 1)
    return LossSums(
        objective=objective,
        nll=-logp_N.sum(),
        probability=p_N.sum(),
        weight=weight_N.sum(),
        weight_squared=mx.square(weight_N).sum(),
        tokens=mx.array(float(logp_N.size)),
        histogram=(bins[:, None] == mx.arange(NUM_BINS)).sum(axis=0).astype(mx.float32),
    )


def _pull_strength(pull: Pull, known: Known, scale_N: mx.array) -> mx.array:
    """(N,) strength of a pull at each token; none where a token is trained plainly."""
    strength_N = pull.strength * known.strength * scale_N
    return strength_N if known.plain is None else mx.where(known.plain, 0, strength_N)


def _scale(known: Known, like_N: mx.array) -> mx.array:
    return mx.ones_like(like_N) if known.scale is None else known.scale


def dense(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    reference_ND: mx.array | None = None,
) -> LossSums:
    """All logits at once, differentiated by MLX: the oracle for the other engines."""
    known = known or Known()
    if targets_N.size == 0:
        return no_tokens(hidden_ND)
    logits_NV = _wide(head(hidden_ND))
    logp_NV = logits_NV - mx.logsumexp(logits_NV, axis=-1, keepdims=True)
    logp_N = mx.take_along_axis(logp_NV, targets_N[:, None], axis=-1)[:, 0]
    stats = _facts(_read(logits_NV, targets_N), recipe.head_facts, known)
    scale_N = _scale(known, logp_N)
    weight_N = mx.stop_gradient(recipe.weight(stats) * scale_N)
    loss_N = -weight_N * logp_N
    for pull in recipe.pulls:
        log_r_NV = _held_target(pull, head, logits_NV, reference_ND)
        gap_N = (mx.exp(log_r_NV) * (log_r_NV - logp_NV)).sum(axis=-1)
        loss_N = loss_N + _pull_strength(pull, known, scale_N) * gap_N
    return _summed(loss_N.sum(), stats.logp, weight_N, stats.p)


def _held_target(
    pull: Pull, head: Head, logits_NV: mx.array, reference_ND: mx.array | None
) -> mx.array:
    base_NV = None
    if pull.needs_reference:
        assert reference_ND is not None, "the pull needs the base model's hidden states"
        base_NV = _wide(head(reference_ND))
    return mx.stop_gradient(pull.target(mx.stop_gradient(logits_NV), base_NV))


def fused(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    reference_ND: mx.array | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> LossSums:
    """Chunks of rows, their gradient made in the forward pass; for a frozen head.

    Memory above the inputs is a few chunks, whatever the vocabulary. The head must have
    no trainable parameters: it would get no gradient.
    """
    known = known or Known()
    if targets_N.size == 0:
        return no_tokens(hidden_ND)

    def forward(hidden: mx.array) -> tuple[mx.array, ...]:
        held = _detached(hidden)
        sums, slope_ND = _walk(
            head, held, targets_N, recipe, known, reference_ND, chunk_bytes
        )
        return (*sums, slope_ND)

    def backward(primals: Any, cotangents: Any, outputs: Any) -> mx.array:
        del primals
        return outputs[-1] * cotangents[0]

    with_gradient: Any = mx.custom_function(forward)
    with_gradient.vjp(backward)
    *sums, _ = with_gradient(hidden_ND)
    return LossSums._make(sums)


def _detached(traced: mx.array) -> mx.array:
    """The same values, out of sight of the differentiation that is under way.

    MLX keeps the whole graph of what it traces, evaluated or not; each chunk's logits
    would then stay until the end.
    """
    values = np.array(_wide(traced))
    return mx.array(values, dtype=traced.dtype)


def _walk(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known,
    reference_ND: mx.array | None,
    chunk_bytes: int,
) -> tuple[LossSums, mx.array]:
    """Sums over all rows and the gradient of their objective, (N, D)."""
    parts: list[LossSums] = []
    slopes: list[mx.array] = []
    for start, end in chunks(head, hidden_ND, chunk_bytes):
        sums, slope = _chunk(
            head,
            hidden_ND[start:end],
            targets_N[start:end],
            recipe,
            known.between(start, end),
            None if reference_ND is None else reference_ND[start:end],
        )
        # Computed now, so that the next chunk's logits can have this one's memory.
        mx.eval(slope, *sums)
        parts.append(LossSums._make(_detached(part) for part in sums))
        slopes.append(_detached(slope))
    return reduce(LossSums.__add__, parts), mx.concatenate(slopes)


def _chunk(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known,
    reference_ND: mx.array | None,
) -> tuple[LossSums, mx.array]:
    """Sums of some rows, and the gradient at their hidden states."""

    def surrogate(hidden: mx.array) -> tuple[mx.array, LossSums]:
        # Linear in the logits with the held slope as factor, so that its gradient is
        # the slope sent back through the head, whose logits are computed once.
        logits_NV = head(hidden)
        sums, slope_NV = _logit_slope(
            mx.stop_gradient(logits_NV), head, targets_N, recipe, known, reference_ND
        )
        return (mx.stop_gradient(slope_NV) * logits_NV).sum(), sums

    (_, sums), slope_ND = mx.value_and_grad(surrogate)(hidden_ND)
    return LossSums._make(sums), slope_ND


def _logit_slope(
    logits_NV: mx.array,
    head: Head,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known,
    reference_ND: mx.array | None,
) -> tuple[LossSums, mx.array]:
    """Sums, and the objective's gradient at the logits: ``G (p - onehot) + s (p - r)``."""
    rows = _read(logits_NV, targets_N)
    stats = _facts(rows, recipe.head_facts, known)
    scale_N = _scale(known, rows.logp_N)
    weight_N = recipe.weight(stats) * scale_N
    objective = -(weight_N * rows.logp_N).sum()
    pulled_N = weight_N
    drawn_NV: mx.array | None = None
    for pull in recipe.pulls:
        log_r_NV = _held_target(pull, head, rows.logits_NV, reference_ND)
        strength_N = _pull_strength(pull, known, scale_N)
        r_NV = mx.exp(log_r_NV)
        away_NV = log_r_NV - rows.logits_NV + rows.lse_N[:, None]
        objective = objective + (strength_N * (r_NV * away_NV).sum(axis=-1)).sum()
        pulled_N = pulled_N + strength_N
        share_NV = strength_N[:, None] * r_NV
        drawn_NV = share_NV if drawn_NV is None else drawn_NV + share_NV
    slope_NV = pulled_N[:, None] * rows.p_NV
    if drawn_NV is not None:
        slope_NV = slope_NV - drawn_NV
    place = mx.arange(targets_N.size)
    slope_NV = slope_NV.at[place, targets_N].add(-weight_N)
    return _summed(objective, rows.logp_N, weight_N, stats.p), slope_NV


def checkpointed(
    head: Callable[[Any, mx.array], mx.array],
    parameters: Any,
    hidden_ND: mx.array,
    targets_N: mx.array,
    recipe: Recipe,
    known: Known | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> LossSums:
    """Chunks of rows, recomputed in the backward pass; for a head that is trained.

    Args:
        head: From the head's parameters and hidden states to logits.
        parameters: Its trainable parameters, handed over explicitly: what a
            checkpointed function merely closes over gets no gradient.
        hidden_ND: Hidden states of the supervised positions.
        targets_N: Their demonstrated tokens.
        recipe: The objective; an anchor to the base model is not possible here.
        known: What is known of the tokens beforehand.
        chunk_bytes: Budget of one chunk's float32 logits.

    Raises:
        ValueError: If the recipe needs the base model, whose head is another one.
    """
    known = known or Known()
    if recipe.needs_reference:
        raise ValueError("a trained head has no base model's logits to be anchored to")
    if targets_N.size == 0:
        return no_tokens(hidden_ND)

    def piece(held: Any, hidden: mx.array, *, start: int, end: int) -> LossSums:
        def of_hidden(rows: mx.array) -> mx.array:
            return head(held, rows)

        facts = known.between(start, end)
        return dense(of_hidden, hidden, targets_N[start:end], recipe, facts)

    def bare(rows: mx.array) -> mx.array:
        return head(parameters, rows)

    parts: list[LossSums] = []
    for start, end in chunks(bare, hidden_ND, chunk_bytes):
        run = mx.checkpoint(partial(piece, start=start, end=end))
        parts.append(LossSums._make(run(parameters, hidden_ND[start:end])))
    return reduce(LossSums.__add__, parts)


def token_stats(
    head: Head,
    hidden_ND: mx.array,
    targets_N: mx.array,
    wanted: Sequence[str] = (),
    known: Known | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[TokenStats, mx.array]:
    """Facts of every token without a gradient, in chunks; and the likeliest tokens (N,).

    Works for any head. The chunks are computed one after another.
    """
    known = known or Known()
    if targets_N.size == 0:
        empty = mx.zeros((0,))
        facts = dict.fromkeys(wanted, empty)
        return TokenStats(empty, known=known, **facts), targets_N
    parts: list[TokenStats] = []
    firsts: list[mx.array] = []
    for start, end in chunks(head, hidden_ND, chunk_bytes):
        logits_NV = head(hidden_ND[start:end])
        rows = _read(logits_NV, targets_N[start:end])
        parts.append(_facts(rows, wanted, Known()))
        firsts.append(mx.argmax(logits_NV, axis=-1))
        mx.eval(parts[-1].logp, firsts[-1], *_asked(parts[-1], wanted))
    joined: dict[str, mx.array] = {
        name: mx.concatenate([getattr(part, name) for part in parts]) for name in wanted
    }
    logp_N = mx.concatenate([part.logp for part in parts])
    return TokenStats(logp_N, known=known, **joined), mx.concatenate(firsts)


def _asked(stats: TokenStats, wanted: Sequence[str]) -> list[mx.array]:
    return [getattr(stats, name) for name in wanted]


def chunks(head: Head, hidden_ND: mx.array, chunk_bytes: int) -> list[tuple[int, int]]:
    """Ranges of rows whose float32 logits stay within the budget; at least one row."""
    num_rows = hidden_ND.shape[0]
    vocabulary = head(hidden_ND[:1]).shape[-1]  # lazy: only its shape is asked for
    size = max(1, chunk_bytes // (4 * vocabulary))
    return [(at, min(at + size, num_rows)) for at in range(0, num_rows, size)]
