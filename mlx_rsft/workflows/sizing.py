"""What a training run will hold in memory: from settings and row lengths to items."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_rsft import lanes, machine
from mlx_rsft.data.conversation import Example
from mlx_rsft.loss.kernel import CHUNK_BYTES, chunks
from mlx_rsft.memory import (
    AT_ONCE,
    GIB,
    PULL_COPIES,
    REFERENCE_COPIES,
    Items,
    Portion,
    Sizes,
    items,
)
from mlx_rsft.models import adapters, load, recompute, source, tape
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.tape import Kept
from mlx_rsft.models.trunk_cost import Workload, model_size, worth
from mlx_rsft.objectives import Objective
from mlx_rsft.objectives.tokens import LAGGED
from mlx_rsft.settings import AdapterSettings, Config, ModelSettings
from mlx_rsft.training import loop
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.workflows import assemble, caching
from mlx_rsft.workflows.portions import FirstSteps, RowSize, Shape, shortened
from mlx_rsft.workflows.reporter import Reporter

MANY_ROWS = 4096
"""More supervised tokens than a chunk of logits holds."""
METAL_BUDGET = 2048
"""Padded tokens at once where nobody chose, on other backends than the CPU's."""


@dataclass(frozen=True, slots=True)
class Where:
    """What machine a run is planned for.

    Attributes:
        available: Bytes that mlx may hold there.
        memory: Bytes that it has.
        stock: Whether it computes otherwise than this one: a Mac, seen from Linux.
    """

    name: str
    available: int
    memory: int
    stock: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run holds, and the micro-batch that decides it.

    Attributes:
        step_tokens: Padded tokens of a usual step.
        step: The optimizer step, from 0, that the micro-batch is in.
        one_chunk: Whether its logits are computed at once.
        recomputed: Blocks that are run again for the gradient.
    """

    items: Items
    shape: Shape
    num_blocks: int
    step_tokens: float
    step: int
    one_chunk: bool
    recomputed: Sequence[int] = ()


def here() -> Where:
    """The machine that this runs on."""
    device = machine.device()
    available = device.working_set_bytes or device.memory_bytes
    return Where("this machine", available, device.memory_bytes, stock=False)


def estimate(
    config: Config, rows: Sequence[RowSize], objective: Objective, where: Where
) -> Estimate:
    """Read the items off shapes; no weight is loaded and nothing is computed.

    Of ``grad_checkpoint = auto`` it chooses as few blocks as fit.
    """
    split = _outline(config.model, config.adapter, where.stock)
    trained = trained_blocks(split)
    setting = config.training.grad_checkpoint
    if setting != recompute.AUTO:
        split.recomputed = recompute.chosen(setting, trained)
        return _estimate(split, config, rows, objective, where)

    def tried(count: int) -> Estimate:
        split.recomputed = trained[:count]
        return _estimate(split, config, rows, objective, where)

    count = bisect_left(
        range(len(trained)),
        True,
        key=lambda count: tried(count).items.total <= where.available,
    )
    return tried(count)


def recomputed(
    config: Config,
    split: SplitModel,
    rows: Sequence[Example],
    objective: Objective,
    reporter: Reporter,
) -> Sequence[int]:
    """The blocks of a run that are run again for the gradient; says what auto chose.

    Raises:
        ConfigError: If the setting names no such blocks.
    """
    trained = trained_blocks(split)
    setting = config.training.grad_checkpoint
    if setting != recompute.AUTO:
        return recompute.chosen(setting, trained)
    sizes = [RowSize(len(row.tokens), row.num_supervised) for row in rows]
    found = estimate(config, sizes, objective, here())
    again = len(found.recomputed)
    reporter.note(
        f"gradient checkpointing: {again} of {len(trained)} trained blocks; the run "
        f"will hold {found.items.total / GIB:.1f} GiB."
    )
    return found.recomputed


def trained_blocks(split: SplitModel) -> range:
    """From the lowest block with something trained to the last."""
    lowest = adapters.first_trained_block(split.model)
    return range(lowest or 0, split.num_blocks)


def _estimate(
    split: SplitModel,
    config: Config,
    rows: Sequence[RowSize],
    objective: Objective,
    where: Where,
) -> Estimate:
    cut = [shortened(row, config.data.max_length) for row in rows]
    budget = config.training.token_budget or (
        METAL_BUDGET if where.stock else assemble.token_budget(config)
    )
    found = FirstSteps(cut, config, budget)
    sizes = _sizes(split, config, objective, where)
    best: tuple[Items, Shape] | None = None
    for shape in found.largest():
        held = items(sizes, _portion(split, shape, objective))
        if best is None or held.total > best[0].total:
            best = held, shape
    assert best is not None
    held, shape = best
    held = replace(held, trunk=_trunk(split, config, cut, where))
    return Estimate(
        held,
        shape,
        split.num_blocks,
        found.mean_tokens,
        step=found.shapes[shape],
        one_chunk=shape.supervised <= sizes.chunk_rows,
        recomputed=split.recomputed,
    )


def _portion(split: SplitModel, shape: Shape, objective: Objective) -> Portion:
    kept = tape.kept(split, shape.rows, shape.width, shape.supervised)
    return Portion(
        kept.scores,
        kept.others,
        shape.supervised,
        shape.before,
        pulled(objective),
        _again(split, shape, kept),
    )


def _again(split: SplitModel, shape: Shape, kept: Kept) -> int:
    """What a block holds while it is computed again: what it would have kept."""
    if not split.recomputed:
        return 0
    split.recomputed, before = split.recomputed[1:], split.recomputed
    try:
        more = tape.kept(split, shape.rows, shape.width, shape.supervised)
    finally:
        split.recomputed = before
    return more.scores + more.others - kept.scores - kept.others


def pulled(objective: Objective) -> int:
    """Arrays of logits that an objective takes beside those of any other."""
    return sum(
        REFERENCE_COPIES if pull.needs_reference else PULL_COPIES
        for pull in objective.pulls
    )


@lru_cache(maxsize=2)
def _outline(
    chosen: ModelSettings, adapter: AdapterSettings, stock: bool
) -> SplitModel:
    if stock and chosen.precision == "auto":
        chosen = replace(chosen, precision="stored")
    model = load.outline(chosen).model
    if stock and chosen.precision == "stored" and source.is_gguf(chosen.source):
        model.set_dtype(mx.float16)  # converted in 32 bits here, in 16 elsewhere
    adapters.attach(model, adapter)
    model.train()
    return (tape.StockOutline if stock else tape.Outline)(model)


def _sizes(
    split: SplitModel, config: Config, objective: Objective, where: Where
) -> Sizes:
    trained = [value for _, value in _leaves(split.model.trainable_parameters())]
    trained_bytes = sum(value.nbytes for value in trained)
    adapter = 0 if config.adapter.method == "full" else trained_bytes
    width = split.hidden(mx.zeros((1, 1), mx.int32)).shape[-1]
    logits = split.head(mx.zeros((1, width)))
    token_logits = 4 * logits.shape[-1]
    chunk_rows = max(1, CHUNK_BYTES // token_logits)
    if not where.stock:
        at_once = 1 if split.head_parameters() else lanes.count()
        many_ND = mx.zeros((MANY_ROWS, width))
        start, end = chunks(split.head, many_ND, CHUNK_BYTES, at_once)[0]
        chunk_rows = end - start
    optimizer = optimizers.make(config.optimizer)
    optimizer.init(split.model.trainable_parameters())
    moments = sum(value.nbytes for _, value in _leaves(optimizer.state))
    # The lagged model's values, where an objective compares with them.
    lagged = trained_bytes if LAGGED in objective.needs else 0
    return Sizes(
        weights=sum(v.nbytes for _, v in _leaves(split.model.parameters())) - adapter,
        adapter=adapter + lagged,
        trained=trained_bytes,
        largest=sum(sorted(value.nbytes for value in trained)[-AT_ONCE:]),
        moments=moments,
        token_logits=token_logits,
        chunk_rows=chunk_rows,
        head=sum(value.nbytes for value in split.head_parameters().values()),
    )


def _leaves(tree: Any) -> list[tuple[str, mx.array]]:
    return tree_flatten(tree)  # pyright: ignore


def _trunk(
    split: SplitModel, config: Config, rows: Sequence[RowSize], where: Where
) -> int:
    """Bytes of the states of frozen blocks, if they will be kept in memory."""
    training = config.training
    depth = adapters.first_trained_block(split.model)
    if training.trunk_cache in (caching.OFF, caching.DISK) or not depth:
        return 0
    tokens = sum(row.tokens for row in rows)
    steps = loop.num_steps(training, len(rows))
    work = Workload(
        tokens,
        sum(row.supervised for row in rows),
        tokens / len(rows),
        training=steps * training.batch_size / len(rows),
    )
    gain = worth(model_size(split, depth), work)
    budget = int(training.trunk_gb * 1e9) or where.memory * caching.SHARE_OF_MEMORY
    wanted = training.trunk_cache == caching.MEMORY or gain.pays
    return gain.num_bytes if wanted and gain.num_bytes <= budget else 0
