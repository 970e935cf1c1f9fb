"""A base model without a chat template, and with a vocabulary of 262,144."""

import json
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file


def test_plain_text_trains_a_base_model(gemma_folder, tmp_path):
    texts = ["Spindle 3 was noisy, so its bearing was replaced.", "Belt 7 was slack."]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = [sys.executable, "-m", "mlx_rsft", "train", "--model", gemma_folder]
    command += ["--data", data, "--run-dir", tmp_path / "run", "--objective", "sft"]
    command += ["--steps", 2, "--batch-size", 1, "--layers", "last:2"]
    ran = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    steps = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    assert len(steps) == 2
    for step in map(json.loads, steps):
        assert 0 < step["nll"] < np.log(262_144)  # better than a guess
        assert step["grad_norm"] > 0
    weights = load_file(tmp_path / "run" / "adapter" / "adapters.safetensors")
    assert {name.split(".")[2] for name in weights} == {"16", "17"}
