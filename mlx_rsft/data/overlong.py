"""What becomes of a row that is longer than allowed: a choice, and never a cut answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import DataError

TOO_LONG = "too long"
Choice = Callable[[Example, int, frozenset[int]], Example | None]
"""From a row that is too long, the length allowed, and the ids that begin a text."""


def _refuse(example: Example, most: int, starts: frozenset[int]) -> Example | None:
    del starts
    raise DataError(
        f"The row has {len(example.tokens)} tokens, more than the {most} allowed.",
        where=example.where,
        hint="Raise --max-length where the model reads more, shorten the row, or choose "
        "--overlong drop or truncate; no answer is ever cut.",
        fault=TOO_LONG,
    )


def _drop(example: Example, most: int, starts: frozenset[int]) -> Example | None:
    del example, most, starts
    return None


def _truncate(example: Example, most: int, starts: frozenset[int]) -> Example | None:
    """The row without its earliest context; its last answer stays whole.

    A token that begins the text stays, because models are lost without it. An earlier
    answer that loses tokens, or all before it, is no longer trained.
    """
    kept = example.tokens[:1] if example.tokens[0] in starts else ()
    rest = max(0, most - len(kept))
    shift = len(example.tokens) - most
    tokens = (*kept, *example.tokens[len(example.tokens) - rest :])
    spans = [
        (begin - shift, end - shift)
        for begin, end in example.spans
        if begin - shift > len(kept)
    ]
    if not spans:
        raise DataError(
            f"The last answer alone has more than the {most} tokens allowed.",
            where=example.where,
            hint="Raise --max-length where the model reads more, or choose --overlong "
            "drop; no answer is ever cut.",
            fault=TOO_LONG,
        )
    return replace(example, tokens=tokens, spans=tuple(spans))


OVERLONG: dict[str, Choice] = {
    "refuse": _refuse,
    "drop": _drop,
    "truncate": _truncate,
}
