import contextlib
import os
import pty
import signal
import subprocess
import time

from .conftest import run, started


def test_lines_from_a_file_are_turns_and_answers_go_to_stdout(
    tiny_folder, tiny_adapter
):
    flags = ["--model", tiny_folder, "--adapter", tiny_adapter, "--max-tokens", 4]
    turns = "hi\n/adapter off\n\n/reset\nhi\n/nothing\n/quit\nnever\n"
    talk = run("chat", *flags, stdin=turns)
    assert talk.returncode == 0, talk.stderr
    assert "adapter off" in talk.stderr
    assert "There is no /nothing" in talk.stderr
    assert "hi" not in talk.stdout
    assert len(talk.stdout) > 4


def test_ctrl_c_stops_an_answer_and_a_second_one_leaves(tiny_folder):
    """In a terminal, as people do it."""
    ours, theirs = pty.openpty()
    flags = ["--model", tiny_folder, "--max-tokens", 10_000_000]
    talk = started("chat", *flags, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""

    def wait_for(text):
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(ours, 4096)
        seen = seen.partition(text)[2]

    try:
        wait_for(b"> ")
        os.write(ours, b"hi\n")
        wait_for(b"hi\r\n")  # the terminal's echo, then the answer
        seen += os.read(ours, 1)
        talk.send_signal(signal.SIGINT)
        wait_for(b"stopped")
        wait_for(b"> ")
        for _ in range(10):  # one that comes as Python begins to read waits for a key
            with contextlib.suppress(subprocess.TimeoutExpired):
                talk.send_signal(signal.SIGINT)
                talk.wait(3)
                break
        assert talk.returncode == 130
    finally:
        talk.kill()
        talk.wait()
        os.close(ours)
