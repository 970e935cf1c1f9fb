"""Which rows go into which split: no question on both sides, every tag in proportion.

Rows that belong together stay together: those whose questions are the same but for
capitals, punctuation and white space, and those of one group where a column names it.
Keeps numbers and hashes, not texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from mlx_rsft.data import check
from mlx_rsft.data.conversation import Conversation


class Splitter:
    """Takes in rows one after another, then assigns each to a split."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._known: dict[bytes, int] = {}
        self._tags: list[tuple[str, ...]] = []

    def add(self, row: Conversation, group: str | None = None) -> None:
        """Take in the next row, and what it belongs to beside its question."""
        place = len(self._parents)
        self._parents.append(place)
        self._tags.append(row.tags)
        keys = ["question " + check.plain(check.question(row))]
        keys += [] if group is None else [f"group {group}"]
        for key in keys:
            digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
            self._join(place, self._known.setdefault(digest, place))

    def _root(self, place: int) -> int:
        while (parent := self._parents[place]) != place:
            self._parents[place] = place = self._parents[parent]
        return place

    def _join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._parents[second] = first

    def assign(
        self, shares: Mapping[str, float], held_out: Sequence[str], seed: int
    ) -> list[str]:
        """The split of each row, in the order they were taken in.

        Args:
            shares: Share of the rows by split name; they add up to 1.
            held_out: Tags whose rows, and all that belong with them, become a split of
                the tag's name.
            seed: Fixes the order in which groups are dealt out.
        """
        groups: dict[int, list[int]] = {}
        for place in range(len(self._parents)):
            groups.setdefault(self._root(place), []).append(place)
        splits = [""] * len(self._parents)
        strata: dict[tuple[str, ...], list[list[int]]] = {}
        for group in groups.values():
            tags = {tag for place in group for tag in self._tags[place]}
            away = next((tag for tag in held_out if tag in tags), "")
            for place in group:
                splits[place] = away
            if not away:
                strata.setdefault(self._tags[group[0]], []).append(group)
        random = np.random.default_rng(seed)
        dealt = [
            strata[tags][place]
            for tags in sorted(strata)
            for place in random.permutation(len(strata[tags]))
        ]
        for group, name in zip(dealt, _deal(dealt, shares), strict=True):
            for place in group:
                splits[place] = name
        return splits


def _deal(groups: Sequence[Sequence[int]], shares: Mapping[str, float]) -> list[str]:
    """A split for each group in turn: the one that is then furthest behind its share.

    So every stretch of groups is shared out in proportion, be it one tag's or many.
    """
    held = dict.fromkeys(shares, 0)
    so_far = 0
    dealt: list[str] = []
    for group in groups:
        so_far += len(group)
        behind = {name: shares[name] * so_far - held[name] for name in shares}
        name = max(behind, key=behind.__getitem__)
        held[name] += len(group)
        dealt.append(name)
    return dealt
