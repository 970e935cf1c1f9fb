import json
import os
import shlex
import subprocess
import sys

from mlx_rsft.cli import pilot as command
from mlx_rsft.report import pilot as words


def _pilot(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "mlx_rsft", "pilot", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_from_one_command_to_a_verdict_and_back_to_it(tmp_path, tiny_folder, tiny_data):
    flags = ["--model", tiny_folder, "--data", tiny_data, "--layers", "last:1"]
    flags += ["--steps", 2, "--minutes", 30, "--arm", "sft", "--arm", "dft"]
    flags += ["--to", "mlx"]
    ran = _pilot(*flags, folder=tmp_path)
    assert ran.returncode == 3, ran.stderr  # two steps teach nothing
    out = tmp_path / "runs/pilot"
    record = json.loads((out / "pilot.json").read_text())
    lines = ran.stdout.splitlines()
    assert lines[0] == words.headline(record)
    assert lines[0].startswith("NOT ENOUGH DATA")
    assert "measure a step of each arm" in ran.stderr
    assert "2 arms, 5 seeds, 2 steps" in " ".join(ran.stderr.split())
    shown = [line.strip() for line in lines]
    for step in record["next"]:
        assert any(
            line.endswith(f"mlx-rsft {shlex.join(step['arguments'])}") for line in shown
        )
    again = _pilot(*flags, "--json", folder=tmp_path)
    assert again.returncode == 3, again.stderr
    told = json.loads(again.stdout)
    assert told.pop("next")[0]["command"] in shown
    assert told == {key: value for key, value in record.items() if key != "next"}


def test_what_is_wrong_is_one_message_and_leaves_nothing(tmp_path, tiny_folder):
    ran = _pilot("--model", tiny_folder, folder=tmp_path)
    assert ran.returncode == 2
    assert "--data" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_program_is_called_as_it_can_be_called_again(monkeypatch, tmp_path):
    monkeypatch.setattr(command.shutil, "which", lambda name: f"/bin/{name}")
    assert command._program() == ["mlx-rsft"]
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.chdir(tmp_path)
    assert command._program()[1:] == ["-m", "mlx_rsft"]
    (tmp_path / ".venv/bin/mlx-rsft").touch()
    assert command._program() == [".venv/bin/mlx-rsft"]
