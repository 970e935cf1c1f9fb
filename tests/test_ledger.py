import json

import pytest

from mlx_rsft import ledger
from mlx_rsft.errors import RunError


@pytest.fixture
def run(tmp_path):
    for number in range(3):
        ledger.append(tmp_path, "went on", step=number, said="é\u2028")
    return tmp_path


def test_each_line_is_sealed_with_the_one_before(run):
    log = ledger.read(run)
    assert [event["step"] for event in log.events] == [0, 1, 2]
    assert [event["prev"] for event in log.events] == [
        ledger.FIRST,
        *(event["sha256"] for event in log.events[:-1]),
    ]
    assert log.head == log.events[-1]["sha256"]
    assert not log.broken
    assert not log.torn


def test_what_a_kill_left_half_written_is_removed_and_the_chain_goes_on(run):
    path = run / ledger.NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 3, "event": "wen')
    assert ledger.read(run).torn
    ledger.append(run, "went on", step=3)
    log = ledger.read(run)
    assert path.read_bytes().startswith(whole)
    assert [event["step"] for event in log.events] == [0, 1, 2, 3]
    assert not log.broken
    assert not log.torn


@pytest.mark.parametrize("kind", ["changed", "removed", "swapped", "spaced"])
def test_a_line_that_was_touched_breaks_the_chain_there(kind, run):
    path = run / ledger.NAME
    first, second, third = path.read_text(encoding="utf-8").split("\n")[:3]
    lines = {
        "changed": [first, second.replace('"step": 1', '"step": 7'), third],
        "removed": [first, third],
        "swapped": [first, third, second],
        "spaced": [first, second + " ", third],
    }[kind]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = ledger.read(run)
    assert log.broken == "line 2 was altered"
    assert [event["step"] for event in log.events] == [0]


def test_a_line_that_was_sealed_anew_does_not_fit_the_next(run):
    path = run / ledger.NAME
    first, second, third = path.read_text(encoding="utf-8").split("\n")[:3]
    other = json.loads(second) | {"step": 7}
    other["sha256"] = ledger._seal(other)
    path.write_text("\n".join([first, json.dumps(other), third]) + "\n")
    assert ledger.read(run).broken


def test_nothing_is_added_after_a_last_line_that_was_altered(run):
    path = run / ledger.NAME
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 9'))
    before = path.read_bytes()
    with pytest.raises(RunError, match="not as it was written"):
        ledger.append(run, "went on", step=3)
    assert path.read_bytes() == before
