import json
import re
from random import Random

import numpy as np
import pytest

from mlx_rsft.data import demo, neighbours


def test_what_stands_in_every_text_makes_none_alike():
    near = neighbours.alike([(1, 2, 9), (1, 3, 9), (1, 2, 4, 9)])
    # 1 and 9 are everywhere; 2 is in two texts, 3 and 4 in one each and so in no pair.
    np.testing.assert_allclose(near, [[1, 0, 1], [0, 1, 0], [1, 0, 1]], atol=1e-6)


def test_rare_tokens_tell_more_than_frequent_ones():
    texts = [(1, 2), (1,), (2, 3), (1, 3), (4,)]
    near = neighbours.alike(texts)
    one, two = np.log(5 / 3), np.log(5 / 2)  # 1 is in three texts, 2 and 3 in two
    np.testing.assert_allclose(near[0, 1], one / np.hypot(one, two), rtol=1e-5)
    np.testing.assert_allclose(
        near[0, 2], two**2 / np.hypot(one, two) / np.hypot(two, two), rtol=1e-5
    )


def test_an_answer_that_its_neighbours_do_not_give_is_contradicted():
    prompts = [(1,)] * 4 + [(2,)] * 4
    answers = [(5,), (5,), (5,), (6,), (6,), (6,), (6,), (5,)]
    judged = neighbours.judge(prompts, answers, num_neighbours=3)
    third = 1 / 3
    np.testing.assert_allclose(
        judged.contradiction, [third] * 3 + [1] + [third] * 3 + [1], atol=1e-6
    )
    assert judged.contradicted.tolist() == [False] * 3 + [True] + [False] * 3 + [True]
    assert answers[judged.spokesman[3]] == (5,)
    assert answers[judged.spokesman[7]] == (6,)


def test_a_row_that_is_like_no_other_is_not_contradicted():
    judged = neighbours.judge([(1,), (1,), (2,)], [(5,), (5,), (6,)])
    assert np.isnan(judged.contradiction[2])
    assert not judged.contradicted[2]
    doubts = neighbours.doubt(judged.contradiction, np.zeros(3))
    assert np.isfinite(doubts).all()


def test_an_answer_that_is_rare_everywhere_does_not_surprise():
    same = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    found = neighbours.surprise(np.array([4.0, 6.0, 2.0]), same)
    # The mean is 4: (6 + 4) / 2, (4 + 4) / 2, and 4 where no answer is similar.
    np.testing.assert_allclose(found, [-1, 2, -2])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_most_planted_wrong_labels_of_the_demo_rank_first(tmp_path, seed):
    demo.write_demo(tmp_path / "data", wrong_labels=0.3, seed=seed)
    rows = _rows(tmp_path / "data/train.jsonl")
    prompts, answers, wrong = zip(*rows, strict=True)
    judged = neighbours.judge(prompts, answers)
    doubts = neighbours.doubt(judged.contradiction, np.zeros(len(rows)))
    planted = sum(wrong)
    first = np.argsort(-doubts, kind="stable")[:planted]
    precision = np.array(wrong)[first].mean()
    assert precision >= 0.85


def test_by_chance_a_third_would_be_found(tmp_path):
    demo.write_demo(tmp_path / "data", wrong_labels=0.3)
    rows = _rows(tmp_path / "data/train.jsonl")
    prompts, answers, wrong = zip(*rows, strict=True)
    shuffled = list(answers)
    Random(0).shuffle(shuffled)
    judged = neighbours.judge(prompts, shuffled)
    first = np.argsort(-judged.contradiction, kind="stable")[: sum(wrong)]
    assert np.array(wrong)[first].mean() < 0.5


def _rows(path):
    ids: dict[str, int] = {}

    def tokens(text):
        words = re.findall(r"\w+|\W", text.lower())
        return tuple(ids.setdefault(word, len(ids)) for word in words)

    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        asked, answered = (turn["content"] for turn in row["messages"])
        found.append((tokens(asked), tokens(answered), "wrong" in row["tags"]))
    return found
