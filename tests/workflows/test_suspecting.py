import csv

import numpy as np

from mlx_rsft.data.conversation import Example
from mlx_rsft.workflows import suspecting


class Words:
    def decode(self, tokens, skip_special_tokens=False):
        assert skip_special_tokens
        return " ".join(map(str, tokens))


def _row(prompt, answer, number):
    tokens = (prompt, answer, 99)
    where = f"f.jsonl:{number}"
    return Example(tokens, ((1, 3),), where, f'says "{answer}", ünd', f"id{number}")


def _rows():
    asked = [1] * 6 + [2] * 6
    answers = [5] * 5 + [6] + [6] * 6
    return [_row(p, a, n) for n, (p, a) in enumerate(zip(asked, answers, strict=True))]


def test_the_contradicted_row_is_suspect_and_its_neighbours_are_quoted():
    rows = _rows()
    found, can_compare = suspecting.suspects(rows, [np.array([-1.0, 0])] * 12, Words())
    assert can_compare
    (only,) = found
    assert only.where == "f.jsonl:5"
    assert only.contradiction == 1
    assert only.neighbours_say == 'says "5", ünd'
    assert only.prompt == "1"
    np.testing.assert_allclose(only.mean_p, (np.exp(-1) + 1) / 2)


def test_where_all_answers_differ_the_least_likely_are_suspect():
    rows = [_row(1, 10 + n, n) for n in range(40)]
    logp = [np.array([-float(n == 7), 0]) for n in range(40)]
    found, can_compare = suspecting.suspects(rows, logp, Words())
    assert not can_compare
    assert len(found) == 2
    assert found[0].where == "f.jsonl:7"
    assert not found[0].neighbours_say


def test_one_row_has_no_neighbours():
    assert suspecting.suspects(_rows()[:1], [np.zeros(2)], Words()) == ([], False)


def test_the_table_reads_back_as_it_was(tmp_path):
    found, _ = suspecting.suspects(_rows(), [np.array([-1.0, 0])] * 12, Words())
    suspecting.save(found, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["answer"] == 'says "6", ünd'
    assert row["corrected"] == ""
    assert row["where"] == "f.jsonl:5"
