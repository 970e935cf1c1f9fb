"""What to change so that a run fits: a ladder, what does least harm first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data.batching import padded_width
from mlx_rsft.errors import ConfigError
from mlx_rsft.models import targets
from mlx_rsft.settings import Config
from mlx_rsft.workflows.sizing import Estimate

PLAN = "plan"
"""The origin of settings that were chosen here."""
WORTH_IT = 0.99
"""A rung that leaves more than this share of the peak is not taken."""
LEAST_BUDGET, LEAST_RANK, LEAST_LENGTH = 16, 2, 64

Changes = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rung:
    """One kind of change, from mild to strong."""

    about: str
    changes_results: bool
    tries: Callable[[Config, Estimate, int], Iterator[Changes]]


@dataclass(frozen=True, slots=True)
class Advice:
    """One change, on top of those before it."""

    about: str
    changes: Changes
    changes_results: bool
    saves_bytes: int
    peak_bytes: int
    fits: bool

    def as_record(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "changes": dict(self.changes),
            "changes_results": self.changes_results,
            "saves_bytes": self.saves_bytes,
            "peak_bytes": self.peak_bytes,
            "fits": self.fits,
        }


def climb(
    resolved: Resolved,
    first: Estimate,
    longest: int,
    available: int,
    sized: Callable[[Config], Estimate],
) -> tuple[list[Advice], Resolved]:
    """Take rungs until the run fits, each as far as needed, or all of them.

    Args:
        resolved: Settings that do not fit.
        first: What they hold.
        longest: Tokens of the longest row.
        available: Bytes that there are.
        sized: What other settings hold.

    Returns:
        The changes in order, and the settings with all of them.
    """
    advice: list[Advice] = []
    now, held = resolved, first
    for rung in LADDER:
        if held.items.total <= available:
            break
        best = _best(rung, now, held, longest, available, sized)
        if best is None or best.held.items.total > WORTH_IT * held.items.total:
            continue
        peak = best.held.items.total
        advice.append(
            Advice(
                rung.about,
                best.changes,
                rung.changes_results,
                held.items.total - peak,
                peak,
                peak <= available,
            )
        )
        now, held = best.settings, best.held
    return advice, now


class _Try(NamedTuple):
    changes: Changes
    settings: Resolved
    held: Estimate


def _best(
    rung: Rung,
    now: Resolved,
    held: Estimate,
    longest: int,
    available: int,
    sized: Callable[[Config], Estimate],
) -> _Try | None:
    """The mildest change of a rung that fits, or the one that holds least."""
    best: _Try | None = None
    for changes in rung.tries(now.config, held, longest):
        try:
            other = configuration.changed(now, changes, PLAN)
            found = sized(other.config)
        except ConfigError:
            continue  # the model does not take it
        if best is None or found.items.total < best.held.items.total:
            best = _Try(changes, other, found)
        if found.items.total <= available:
            break
    return best


def _budgets(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    budget = _budget(config, held)
    least = max(LEAST_BUDGET, padded_width(longest))
    while budget > least:
        budget = max(least, budget // 2)
        yield {"training.token_budget": budget}


def _budget(config: Config, held: Estimate) -> int:
    return config.training.token_budget or held.shape.rows * held.shape.width


def _recomputed(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    del config, held, longest
    yield {"training.grad_checkpoint": "auto"}


def _trunk_on_disk(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    del config, longest
    if held.items.trunk:
        yield {"training.trunk_cache": "disk"}


def _fewer_bits(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    del held, longest
    if config.adapter.method != "full" and config.model.quantize == "none":
        yield {"model.quantize": "8"}
        yield {"model.quantize": "4"}


def _fewer_blocks(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    del longest
    count = len(targets.blocks(config.adapter.layers, held.num_blocks))
    while count > 1:
        count //= 2
        yield {"adapter.layers": f"last:{count}"}


def _lower_rank(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    del held, longest
    rank = config.adapter.rank
    while config.adapter.method != "full" and rank > LEAST_RANK:
        rank = max(LEAST_RANK, rank // 2)
        yield {"adapter.rank": rank}


def _shorter_rows(config: Config, held: Estimate, longest: int) -> Iterator[Changes]:
    length = min(longest, config.data.max_length)
    while length > LEAST_LENGTH:
        length = max(LEAST_LENGTH, length // 2)
        yield {
            "data.max_length": length,
            "data.overlong": "truncate",
            "training.token_budget": min(_budget(config, held), padded_width(length)),
        }


LADDER = (
    Rung("compute fewer tokens at once", False, _budgets),
    Rung("compute blocks again for the gradient", False, _recomputed),
    Rung("keep the frozen blocks' states on disk", False, _trunk_on_disk),
    Rung("hold the frozen weights in fewer bits", True, _fewer_bits),
    Rung("train fewer blocks", True, _fewer_blocks),
    Rung("use a lower rank", True, _lower_rank),
    Rung("cut the earliest context of long rows", True, _shorter_rows),
)
