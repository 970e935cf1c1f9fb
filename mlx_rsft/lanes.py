"""Several jobs at once, a core each, where mlx computes on the CPU.

mlx's CPU backend runs one operation after another. The BLAS under it spreads a matrix
product over the cores; whatever is between two products keeps one core busy and the
others waiting. Jobs that do not read each other's results can have a stream each: then
every core multiplies by itself, and does what is in between as well.

A job is a generator. It yields the arrays that it wants computed before it goes on, and
returns its result. All jobs go on together, so they should be of one kind and size.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

import mlx.core as mx

from mlx_rsft import blas, machine

T = TypeVar("T")
Job = Generator[Iterable[mx.array], None, T]


def count() -> int:
    """How many jobs have a core each; 1 where mlx itself spreads its work."""
    return blas.threads() if machine.backend() == "cpu" else 1


def together(jobs: Sequence[Job[T]], cores: int | None = None) -> list[T]:
    """Run some jobs at once, and return what they return.

    Args:
        jobs: As many as ``count`` says at the most. One alone stays on the stream that
            is current, and its products are spread over the cores.
        cores: Each job is given this part of them, whatever the number of jobs, so that
            its products are summed in the same order alone and in company.
    """
    results: dict[int, T] = {}
    with blas.shared(cores or len(jobs)):
        while len(results) < len(jobs):
            asked: list[list[mx.array]] = []
            for place in range(len(jobs)):
                if place not in results:
                    with mx.stream(_stream(place)):
                        try:
                            asked.append(list(next(jobs[place])))
                        except StopIteration as end:
                            results[place] = end.value
            _compute(asked)
    return [results[place] for place in range(len(jobs))]


def _compute(asked: Sequence[Sequence[mx.array]]) -> None:
    """Compute what all ask for; in turn, because mlx hands out its work in this order."""
    turns = itertools.zip_longest(*asked)
    mx.eval([array for turn in turns for array in turn if array is not None])


@functools.cache
def _stream(place: int) -> mx.Stream:
    device = mx.default_device()
    return mx.default_stream(device) if place == 0 else mx.new_stream(device)
