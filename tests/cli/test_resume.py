"""Real processes, stopped by signals and told to go on; killed ones: scripts/faults."""

import json
import signal
import subprocess
import time

from .conftest import run, started

FLAGS = ("--objective", "sft", "--layers", "last:2", "--steps", 250, "--batch-size", 4)


def _steps(folder):
    lines = (folder / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    times = {"tokens_per_s", "peak_bytes"}
    return [{k: v for k, v in step.items() if k not in times} for step in steps]


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
