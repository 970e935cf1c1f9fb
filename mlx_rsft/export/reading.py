"""What a reader of exported files is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Product

LIKELIEST = 20
"""Tokens whose log-probabilities are compared at every place."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens that every reader is shown.

    Attributes:
        tokens: The whole row.
        start: The first token that is predicted; those before it are the prompt.
        greedy: Whether it goes on as the live model answers by itself.
        own: Whether it is one of the user's rows, and no bundled text.
    """

    tokens: tuple[int, ...]
    start: int
    greedy: bool
    own: bool = False


class Opened(Protocol):
    """A product as its reader has it in memory."""

    def likely(self, row: Row) -> Iterator[tuple[int, Mapping[int, float]]]:
        """Places of the row from ``start`` on, each with what could stand there.

        Places are in order, and may be few. Each comes with log-probabilities, nats,
        of about the ``LIKELIEST`` tokens, the first choice among them.
        """
        ...


LARGEST, MEAN, DIVERGENCE = "max_difference", "mean_difference", "divergence"
"""Figures of ``export.json`` that a limit can be about."""


class Limit(NamedTuple):
    """What rounding explains, and by which figure a product is judged.

    Attributes:
        nats: The largest value that the figure may have.
        of: ``LARGEST`` for numbers that are held as they are, ``MEAN`` for weights
            rounded to 16 bits, ``DIVERGENCE`` for weights of fewer bits, of which the
            adapter must outlive the rounding too.
    """

    nats: float
    of: str = LARGEST


class Reader(NamedTuple):
    """Someone who loads what was exported, and is asked what the live model was.

    Attributes:
        summary: Who it is, as its users call it.
        missing: Why it cannot read this product here, as a sentence; empty if it can.
        open: Loads the product for the length of a context. The live model's adapter
            may be off meanwhile: it has been asked before.
        limit: What rounding explains.
        rounded: Whether it is made to round the embeddings' factor as mlx-lm does.
    """

    summary: str
    missing: Callable[[Live, Product], str]
    open: Callable[[Live, Product], AbstractContextManager[Opened]]
    limit: Callable[[Live, Product], Limit]
    rounded: bool = False
