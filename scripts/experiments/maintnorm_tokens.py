"""Precision, recall and error reduction rate of normalised notes, token by token.

The source counts words of the raw note: one that had to change and was changed rightly is
a true positive, one that had to and was not a false negative, one that had not to and was
changed a false positive. Ours write whole notes, so words are brought together by rule:
raw words with the words that stand for them in the right note, then the right note with
what was written.

References:
    van der Goot, MoNoise, ACL 2019; Bikaun et al., MaintNorm, WNUT 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

from mlx_rsft.evaluation.values import Values

MOST_WORDS = 5
"""A raw word stands for so many at most, such as ``fuseholderandrelaybase``."""
MASKS = ("<id>", "<num>", "<date>", "<sensitive>")


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one note: words that had to change and did, others, and what was unasked."""

    right: int
    missed: int
    unasked: int
    kept: int


def counts(raw: str, right: str, written: str) -> Counts:
    """What became of every word of a raw note."""
    spans = aligned(raw.split(), right.split())
    words, got = right.split(), written.split()
    fits = [False] * len(words)
    extra = [False] * (len(words) + 1)
    """Whether something stands before a word that should not."""
    filled = [False] * (len(words) + 1)
    """Whether a word that had to go may still be there."""
    matcher = SequenceMatcher(None, words, got, autojunk=False)
    for kind, begin, end, start, stop in matcher.get_opcodes():
        if kind == "equal":
            fits[begin:end] = [True] * (end - begin)
        elif kind == "insert":
            extra[begin] = True
        if stop - start > end - begin:
            filled[begin : end + 1] = [True] * (end + 1 - begin)
    found = [0, 0, 0, 0]
    for word, (begin, end) in zip(raw.split(), spans, strict=True):
        last = end == len(words)
        clean = not any(extra[begin:end]) and not (last and extra[end])
        good = all(fits[begin:end]) and clean if begin < end else not filled[begin]
        changed = words[begin:end] != [word]
        found[(0 if good else 1) if changed else (3 if good else 2)] += 1
    return Counts(*found)


def aligned(raw: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """For each raw word where the words that stand for it begin and end, in order."""

    @cache
    def best(word: int, begin: int) -> tuple[float, tuple[int, ...]]:
        if word == len(raw):
            return (0.0 if begin == len(right) else 1e9), ()
        left = len(right) - begin
        tried = [
            (_cost(raw[word], tuple(right[begin : begin + n])), n)
            for n in range(min(MOST_WORDS, left) + 1)
        ]
        found: list[tuple[float, tuple[int, ...]]] = []
        for cost, n in tried:
            rest, sizes = best(word + 1, begin + n)
            found.append((cost + rest, (n, *sizes)))
        return min(found)

    _, sizes = best(0, 0)
    spans: list[tuple[int, int]] = []
    begin = 0
    for size in sizes:
        spans.append((begin, begin + size))
        begin += size
    return spans


@cache
def _cost(word: str, stands: tuple[str, ...]) -> float:
    """How unlikely some words are to stand for a raw one; 0 if they are the same."""
    if not stands:
        return 1.0
    low, whole = word.lower(), "".join(stands).lower()
    spare = 0.15 * (len(stands) - 1)
    if low == whole:
        return 0.0 if len(stands) == 1 else 0.05
    if any(mask in stands for mask in MASKS):
        digits = any(letter.isdigit() for letter in word)
        return spare + (0.1 if digits else 0.5)
    letters = "".join(filter(str.isalnum, low))
    if _is_within(letters, whole):  # an abbreviation, in the order of its letters
        return spare + (0.1 if whole[:1] == letters[:1] else 0.4)
    return spare + 1.0 - SequenceMatcher(None, low, whole).ratio() / 2


def _is_within(letters: str, whole: str) -> bool:
    rest = iter(whole)
    return bool(letters) and all(letter in rest for letter in letters)


def _precision(held: Sequence[Counts]) -> Values:
    return Values([c.right for c in held], [c.right + c.unasked for c in held])


def _recall(held: Sequence[Counts]) -> Values:
    return Values([c.right for c in held], [c.right + c.missed for c in held])


def _reduction(held: Sequence[Counts]) -> Values:
    asked = [c.right + c.missed for c in held]
    return Values([c.right - c.unasked for c in held], asked)


REDUCTION = "error reduction"
"""By which models of the source are compared."""
FIGURES = {
    "precision": _precision,
    "recall": _recall,
    REDUCTION: _reduction,
}
