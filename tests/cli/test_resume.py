"""Real processes, stopped by signals and told to go on; killed ones: scripts/faults."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mlx_rsft import records

from .conftest import run, started

FLAGS = ("--objective", "sft", "--layers", "last:2", "--steps", 250, "--batch-size", 4)


def _steps(folder):
    lines = (folder / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    hour = records.OF_THE_HOUR
    return [{k: v for k, v in step.items() if k not in hour} for step in steps]


def _adapter(folder):
    return (folder / "adapter" / "adapters.safetensors").read_bytes()


def _count(folder):
    file = folder / "steps.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _begun(process, folder, before=0):
    """Wait until a process has made a step that was not there before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if _count(folder) > before:
            return
        time.sleep(0.005)


def test_ctrl_c_saves_a_checkpoint_to_go_on_from_and_a_second_one_leaves_at_once(
    tmp_path, tiny_folder, tiny_data
):
    folder = tmp_path / "run"
    where = ("--model", tiny_folder, "--data", tiny_data, "--run-dir", folder)
    flags = (*FLAGS, "--steps", 100_000, "--checkpoint-every", 0)
    process = started("train", *where, *flags, stderr=subprocess.PIPE, text=True)
    _begun(process, folder)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"--run-dir {folder} --resume" in said
    steps = len(_steps(folder))
    newest = max(path.name for path in (folder / "checkpoints").iterdir())
    assert newest == f"step-{steps:06d}"
    again = ("train", "--run-dir", folder, "--resume")
    process = started(*again, stderr=subprocess.PIPE, text=True)
    _begun(process, folder, steps)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert run(*again, "--dry-run").returncode == 0


LIMITED = """
import resource, sys
from mlx_rsft.cli.main import main
from mlx_rsft.workflows import stepping
real = stepping.train
def train(*given):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 64_000_000,) * 2)
    return real(*given)
stepping.train = train
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds address space")
def test_a_process_that_dies_for_memory_leaves_a_run_that_goes_on_and_says_so(
    tmp_path, tiny_folder
):
    data = tmp_path / "train.jsonl"
    rows = [{"prompt": f"{n}", "completion": "abcd" * 200} for n in range(64)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    words = ["train", "--model", tiny_folder, "--data", data, "--run-dir", folder]
    words += ["--objective", "sft", "--layers", "all", "--steps", 1]
    words += ["--batch-size", 64, "--token-budget", 65536]
    one_core = os.environ | {"OPENBLAS_NUM_THREADS": "1"}

    def ended(*command):
        words = [sys.executable, *map(str, command)]
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=one_core,
        )

    ran = ended("-c", LIMITED, *words)
    # mlx's CPU backend and OpenBLAS end the process themselves; Metal raises an error.
    assert ran.returncode < 0 or "Memory" in ran.stderr, ran.stderr
    again = ended(
        "-m", "mlx_rsft", *words[:1], "--run-dir", folder, "--resume", "--dry-run"
    )
    assert again.returncode == 0, again.stderr
    said = " ".join(again.stderr.split())
    assert "goes on after step 0 of 1" in said
    assert "was killed, or memory ran out. By the plan it holds 0." in said
