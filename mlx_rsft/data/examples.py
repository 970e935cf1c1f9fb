"""From conversations to examples that fit: all problems at once, nothing lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mlx_rsft.data import render
from mlx_rsft.data.conversation import Conversation, Example
from mlx_rsft.data.overlong import OVERLONG
from mlx_rsft.data.render import ChatTokenizer
from mlx_rsft.errors import DataError, RsftError, raise_together

DROPPED, TRUNCATED = "dropped", "truncated"


@dataclass(frozen=True, slots=True)
class Shape:
    """What examples are to be like.

    Attributes:
        tokenizer: Of the model that will read them.
        train_on: ``all`` assistant turns, the ``last`` one, or ``everything``.
        max_length: Longest row in tokens.
        overlong: What becomes of a longer one: a name in ``OVERLONG``.
    """

    tokenizer: ChatTokenizer
    train_on: str
    max_length: int
    overlong: str

    def examples(self, row: Conversation, outcome: Counter[str]) -> list[Example]:
        """The examples of one row; counts in ``outcome`` what was left out.

        Raises:
            ModelError: If the row is a conversation and the model has no template.
            DataError: If the row does not fit the template or the length.
        """
        fitting: list[Example] = []
        for example in render.render(row, self.tokenizer, self.train_on):
            if len(example.tokens) <= self.max_length:
                fitting.append(example)
                continue
            starts = frozenset({self.tokenizer.bos_token_id})
            kept = OVERLONG[self.overlong](example, self.max_length, starts)
            outcome[DROPPED if kept is None else TRUNCATED] += 1
            if kept is not None:
                fitting.append(kept)
        return fitting


def examples(
    found: Iterable[Conversation | DataError],
    shape: Shape,
    outcome: Counter[str],
    report: Callable[[int], None] | None = None,
) -> Iterator[Example]:
    """Every row as examples, in a stream; all that cannot be are named at its end.

    Args:
        found: Rows, and in their place those that could not be read.
        shape: What examples are to be like.
        outcome: Counts what is dropped or truncated.
        report: Told rows done since the last call.

    Raises:
        ModelError: If a conversation meets a model without a chat template.
        DataError: With every row that cannot be used; or if all were dropped.
    """
    problems: list[RsftError] = []
    some = False
    for row in found:
        try:
            if isinstance(row, DataError):
                raise row
            for example in shape.examples(row, outcome):
                some = True
                yield example
        except DataError as problem:
            problems.append(problem.with_traceback(None))
        if report:
            report(1)
    raise_together(problems)
    if not some:
        raise DataError(
            f"Every row is longer than the {shape.max_length} tokens allowed.",
            hint="Raise --max-length where the model reads more, or choose --overlong truncate.",
        )
