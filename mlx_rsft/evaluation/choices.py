"""Multiple choice: which of some answers the model finds likeliest.

The choices stand in the row, ``"choices": ["seal", "bearing"]`` (in a cell
``seal|bearing``), or are the same for all rows, as labels are; the row's own answer is
the right one. Each is scored as a whole last turn, its end included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, DataError, ModelError
from mlx_rsft.evaluation import likelihood
from mlx_rsft.evaluation.evidence import Evidence
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.evaluation.values import Values
from mlx_rsft.models.split import SplitModel

PerRow = Callable[[Evidence], Values]


def choices(
    of: str = "", file: str = "", normalise: Literal["none", "token"] = "none"
) -> PerRow:
    """Whether the likeliest choice is the row's answer.

    Args:
        of: Choices of every row, joined by |.
        file: A text with one of them per line.
        normalise: Compare the likelihood of whole answers, or of their mean token.
    """
    if of and file:
        raise ConfigError("Both of and file are given.", hint="Keep one.")
    same = of.split("|") if of else _lines(Path(file)) if file else []
    for_all = tuple(filter(None, (text.strip() for text in same)))
    if (of or file) and len(set(for_all)) < 2:
        raise ConfigError("There are fewer than two choices.", where=file)

    def per_row(known: Evidence) -> Values:
        options = [_options(row, for_all) for row in known.examples]
        marks: list[float] = []
        for row, texts, scores in zip(
            known.examples, options, known.score_options(options), strict=True
        ):
            nats = [s.nll / (s.tokens if normalise == "token" else 1) for s in scores]
            marks.append(float(texts[nats.index(min(nats))] == row.answer.strip()))
        return Values(marks)

    return per_row


def _lines(path: Path) -> list[str]:
    try:
        return path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"file = {str(path)!r}: {problem}.") from None


def _options(row: Example, for_all: Sequence[str]) -> Sequence[str]:
    found = for_all or tuple(text.strip() for text in row.choices)
    if len(found) < 2:
        raise DataError(
            "The row has no choices.",
            where=row.where,
            hint='Give it "choices": ["...", "..."], or name those of every row: '
            "choices:of=a|b|c, choices:file=labels.txt.",
        )
    if row.answer.strip() not in found:
        raise DataError(
            f"The answer {row.answer.strip()!r} is none of the choices "
            f"({', '.join(islice(found, 8))}).",
            where=row.where,
            hint="Write it as one of them is written.",
        )
    return found


def scored(
    split: SplitModel,
    tokenizer: Any,
    examples: Sequence[Example],
    options: Sequence[Sequence[str]],
) -> list[list[RowScore]]:
    """How likely each row's last turn would be with each of its options."""
    flat = [
        _with_answer(row, text, tokenizer)
        for row, texts in zip(examples, options, strict=True)
        for text in texts
    ]
    scores = iter(likelihood.score(split, flat))
    return [list(islice(scores, len(texts))) for texts in options]


def _with_answer(row: Example, text: str, tokenizer: Any) -> Example:
    start, stop = row.spans[-1]
    reply = (*tokenizer.encode(text, add_special_tokens=False), row.tokens[stop - 1])
    if text == row.answer.strip() and reply != row.tokens[start:stop]:
        raise ModelError(
            f"The answer {text!r} has other tokens by itself than in its row, so choices "
            "cannot be compared.",
            where=row.where,
            hint="Use exact_match or generated_exact_match with this model.",
        )
    tokens = (*row.tokens[:start], *reply)
    return replace(row, tokens=tokens, spans=((start, len(tokens)),), answer=text)
