from collections import Counter

import numpy as np

from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.splitting import Splitter

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def _row(question, tags=()):
    turns = (Message("user", question), Message("assistant", "a"))
    return Conversation(turns, "f:1", tags=tags)


def _assign(rows, groups=None, held_out=(), seed=0, shares=SHARES):
    splitter = Splitter()
    for row, group in zip(rows, groups or [None] * len(rows), strict=True):
        splitter.add(row, group)
    return splitter.assign(shares, held_out, seed)


def test_shares_are_met_and_every_row_gets_a_split():
    rows = [_row(f"question {n}") for n in range(1000)]
    assert Counter(_assign(rows)) == {"train": 800, "valid": 100, "test": 100}


def test_the_order_is_that_of_the_seed():
    rows = [_row(f"question {n}") for n in range(50)]
    assert _assign(rows) == _assign(rows)
    assert _assign(rows) != _assign(rows, seed=1)


def test_questions_alike_but_for_case_and_marks_stay_together():
    rng = np.random.default_rng(0)
    words = [f"line {n % 60} stops{'?!. '[n % 4]}" for n in rng.permutation(240)]
    rows = [_row(text.upper() if n % 3 else text) for n, text in enumerate(words)]
    splits = _assign(rows)
    homes = {}
    for text, split in zip(words, splits, strict=True):
        homes.setdefault(text.strip("?!. "), set()).add(split)
    assert len(homes) == 60
    assert all(len(home) == 1 for home in homes.values())
    assert set(splits) == set(SHARES)


def test_rows_of_a_group_stay_together_and_groups_join_through_questions():
    rows = [_row("same"), _row("b"), _row("same"), _row("d"), _row("e")]
    groups = ["g1", "g1", "g2", "g2", "g3"]
    for seed in range(8):
        splits = _assign(rows, groups, seed=seed, shares={"train": 0.5, "test": 0.5})
        assert len(set(splits[:4])) == 1


def test_every_tag_is_dealt_out_in_proportion():
    rows = [_row(f"q {n}", ("ab"[n % 10 == 0],)) for n in range(1000)]
    splits = _assign(rows)
    for tag, total in (("a", 900), ("b", 100)):
        held = Counter(s for r, s in zip(rows, splits, strict=True) if r.tags == (tag,))
        for name, share in SHARES.items():
            assert abs(held[name] - share * total) <= 2


def test_many_small_tags_still_fill_every_split():
    rows = [_row(f"q {n}", (f"t{n}",)) for n in range(200)]
    assert Counter(_assign(rows)) == {"train": 160, "valid": 20, "test": 20}


def test_a_tag_held_out_takes_all_that_belongs_with_it():
    rows = [_row(f"q {n}", ("old",)) for n in range(20)]
    rows += [_row("fresh", ("new",)), _row("FRESH!", ("old",)), _row("more", ("new",))]
    splits = _assign(rows, held_out=["new"])
    assert splits[20:] == ["new"] * 3
    assert "new" not in splits[:20]
