"""Runs of two ranks, in real processes, connected by a real ring over loopback."""

import json
import signal

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import records
from mlx_rsft.cli.main import main
from mlx_rsft.training import checkpoint

from .conftest import outcome

ROWS = 23
"""Not to be divided by the batch size, nor that by the ranks."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("ranked")


@pytest.fixture(scope="module")
def data(place):
    folder = place / "data"
    folder.mkdir()
    for name, count in (("train", ROWS), ("valid", 3)):
        rows = [
            {"prompt": f"{name} {'x' * (n % 7)}", "completion": f"answer {n}"}
            for n in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def words(tiny_folder, data):
    """The words that train into a folder; of what is given twice, the last holds."""

    def of(run, *more, steps=8, rank="--rank=2"):
        where = ["--model", str(tiny_folder), "--data", str(data)]
        manner = ["--objective", "sft", "--layers", "last:1", *([rank] if rank else [])]
        length = ["--steps", str(steps), "--batch-size", "5"]
        rate = ["--learning-rate", "0.02"]
        given = [*where, *manner, *length, *rate, *more]
        return ["train", *given, "--run-dir", str(run)]

    return of


def again(run, *more):
    return ["train", "--run-dir", str(run), "--resume", *more]


def alone(words):
    """What the command ends with in this process, as one rank."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


@pytest.fixture(scope="module")
def uncut(launched, words, place):
    """A run of two ranks that nothing happened to."""
    run, other = place / "uncut", place / "never"
    looking = ("--eval-every", "3")
    ended = launched([words(run, *looking), words(other, *looking)])
    assert [code for code, _ in ended] == [0, 0], ended
    assert ended[1][1] == "", "rank 0 alone speaks"
    assert not other.exists(), "rank 0 alone writes"
    return run


def _adapter(run):
    return mx.load(str(run / "adapter" / "adapters.safetensors"))


def _assert_alike(one, other):
    first, second = (
        list(records.read_lines(run / "steps.jsonl")) for run in (one, other)
    )
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
        for name in ("loss", "nll", "mean_p", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, err_msg=name)
    rows = [list(records.read_lines(run / "weights.jsonl")) for run in (one, other)]
    assert [line["rows"] for line in rows[0]] == [line["rows"] for line in rows[1]]
    held, wanted = _adapter(one), _adapter(other)
    assert held.keys() == wanted.keys()
    for name in held:
        # Eight steps of at most 0.02: a thousandth of them is rounding that Adam blew up.
        np.testing.assert_allclose(held[name], wanted[name], rtol=1e-3, atol=2e-4)


def test_two_ranks_train_what_one_does(words, uncut, place):
    run = place / "alone"
    assert alone(words(run, "--eval-every", "3")) == 0
    _assert_alike(uncut, run)
    looks = [list(records.read_lines(one / "evals.jsonl")) for one in (uncut, run)]
    for a, b in zip(*looks, strict=True):
        assert (a["step"], a["metric"]) == (b["step"], b["metric"])


def test_so_they_do_with_all_weights(launched, words, place):
    one, two = place / "full-1", place / "full-2"
    full = ("--method", "full", "--learning-rate", "1e-4", "--optimizer", "sgd")
    assert alone(words(one, *full, rank="")) == 0
    assert [code for code, _ in launched([words(two, *full, rank="")] * 2)] == [0, 0]
    _assert_alike(two, one)


def test_ranks_that_hold_other_things_are_told_so_before_anything_is_written(
    launched, words, place, data
):
    changed = place / "changed"
    changed.mkdir()
    for file in data.iterdir():
        text = file.read_text()
        (changed / file.name).write_text(text.replace("answer 3", "answer 4"))
    run = place / "unlike"
    one = words(run)
    other = words(run, "--learning-rate", "0.01", "--data", str(changed))
    for code, said in launched([one, other]):
        assert code == 2
        assert "optimizer.learning_rate is 0.02 on rank 0 and 0.01 on rank 1" in said
        assert "data train train.jsonl is" in said
        assert "same command, files and packages" in said
    assert not run.exists()


def test_ranks_that_are_asked_for_other_things_are_told_so(launched, words, uncut):
    for code, said in launched([again(uncut), words(uncut)]):
        assert code == 2
        assert "resume is True on rank 0 and False on rank 1" in said


def test_a_run_goes_on_with_as_many_ranks_alone(uncut, capsys):
    assert alone(again(uncut, "--extend-to", "9")) == 2
    said = capsys.readouterr().err
    assert "begun by 2 ranks and is now gone on with by 1" in said
    assert "mlx.launch -n 2" in said


def test_a_lost_rank_ends_the_other_and_the_run_goes_on(launched, words, place):
    run, whole = place / "lost", place / "whole"
    send = [1, signal.SIGKILL, str(run / "steps.jsonl"), 4]
    (code, said), (killed, _) = launched([words(run, steps=20)] * 2, send=send)
    assert (code, killed) == (2, -signal.SIGKILL)
    assert "Rank 1 is lost" in said
    assert f"mlx-rsft train --run-dir {run} --resume" in said
    assert "Traceback" not in said
    newest = checkpoint.found(run / "checkpoints")[-1]
    assert checkpoint.step_of(newest) >= 4, "the state so far is saved"
    for ended in (launched([again(run)] * 2), launched([words(whole, steps=20)] * 2)):
        assert [code for code, _ in ended] == [0, 0]
    assert outcome(run) == outcome(whole)


def test_without_rank_0_the_other_ends_too(launched, words, place):
    run = place / "leaderless"
    send = [0, signal.SIGKILL, str(run / "steps.jsonl"), 4]
    code, said = launched([words(run, steps=4000)] * 2, send=send)[1]
    assert code == 2
    assert "Rank 0 is lost" in said
    assert "Traceback" not in said


def test_a_rank_that_stands_still_is_not_waited_for_for_ever(launched, words, place):
    run = place / "still"
    send = [1, signal.SIGSTOP, str(run / "steps.jsonl"), 4]
    environment = {"MLX_RSFT_PATIENCE": "1"}
    ended = launched([words(run, steps=4000)] * 2, environment=environment, send=send)
    code, said = ended[0]
    assert code == 2
    assert "Rank 1 is lost: it has not answered for" in said
    assert checkpoint.read(checkpoint.found(run / "checkpoints")[-1]).step >= 4


def test_a_stop_of_one_rank_stops_all_after_the_same_step(launched, words, place):
    run = place / "stopped"
    send = [1, signal.SIGINT, str(run / "steps.jsonl"), 4]
    ended = launched([words(run, steps=4000)] * 2, send=send)
    assert [code for code, _ in ended] == [130, 0]
    assert "of 4000 steps; the adapter so far is saved" in ended[0][1]


def test_ranks_go_back_together_where_updates_are_not_finite(launched, words, place):
    run = place / "diverged"
    more = ("--optimizer", "sgd", "--learning-rate", "1e30", "--clip-norm", "0")
    ended = launched([words(run, *more, steps=30)] * 2)
    assert [code for code, _ in ended] == [2, 0], ended
    assert "not finite again" in ended[0][1]
    assert "Went back from step" in (run / "steps.jsonl").read_text()
