"""The quickstart keeps what is done, redoes what is not, and says how to go on.

Training takes minutes, so a stand-in package writes the files that mlx-rsft would;
everything about going on, stopping and failing is real.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DEMO = """
def gguf_file(report):
    report(1, 1)
    return "demo.gguf"
"""
COMMAND = """
import json, os, sys, time
from pathlib import Path

command, *flags = sys.argv[1:]
value = lambda name: flags[flags.index(name) + 1]
log = Path(os.environ["LOG"])
with log.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
troubled = os.environ.get("TROUBLE", "no trouble") in " ".join(sys.argv[1:])
if command == "data":
    folder = Path(flags[1])
    folder.mkdir(parents=True)
    row = {"messages": [{"role": "user", "content": "it's loud"}, {"content": "so"}]}
    for split in ("train", "test_new_parts"):
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\\n")
elif command == "train":
    run = Path(value("--run-dir"))
    run.mkdir()
    (run / "manifest.json").write_text('{"finished": null}')
    if troubled:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(1)
            (run / "saved").touch()
            sys.exit(130)
    (run / "manifest.json").write_text('{"finished": "today"}')
elif troubled:
    said = {"where": "x.jsonl:17", "message": "No good.", "hint": "Mend it."}
    print(json.dumps({"error": said}))
    sys.exit(3)
else:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = {"rows": 9, "metrics": {"exact_match": metric, "nll": metric}}
    print(json.dumps({"splits": dict.fromkeys(value("--splits").split(","), scores)}))
"""


class Start:
    """Starts scripts/first_light.py with the stand-in, results in one folder."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.log = folder / "log"
        package = folder / "mlx_rsft"
        (package / "models").mkdir(parents=True)
        real = ROOT / "mlx_rsft"
        (package / "__init__.py").write_text(f"__path__.append({str(real)!r})\n")
        (package / "__main__.py").write_text(COMMAND)
        (package / "models" / "__init__.py").touch()
        (package / "models" / "demo.py").write_text(DEMO)
        self.log.touch()
        self.env = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PYTHONSAFEPATH": "1",  # or the package in the current folder comes first
            "LOG": str(self.log),
        }

    def start(self, **variables):
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts/first_light.py", "--out", self.out],
            env={**self.env, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, **variables):
        with self.start(**variables) as running:
            stdout, stderr = running.communicate(timeout=60)
        return subprocess.CompletedProcess([], running.returncode, stdout, stderr)

    def commands(self) -> list[str]:
        """What was run since the last look, as command and what it makes."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return [line.replace(f"{self.out}/", "") for line in lines]


@pytest.fixture
def quickstart(tmp_path):
    return Start(tmp_path.resolve())


def verbs(commands):
    return [line.split()[0] for line in commands]


def test_both_arms_differ_in_nothing_but_the_objective(quickstart):
    quickstart()
    sft, dft = (c for c in quickstart.commands() if c.startswith("train"))
    dft = dft.replace("dft-floor-0.1", "sft").replace("dft:floor=0.1", "sft")
    assert dft == sft
    assert "--seed 0" in sft


def test_the_table_names_every_arm_the_paths_and_the_next_command(quickstart):
    result = quickstart()
    assert result.returncode == 0, result.stderr
    for row in ("base model", "sft", "dft:floor=0.1"):
        assert f"{row} " in result.stdout
    assert result.stdout.count("0.50 (0.40-0.60)") == 9
    assert str(quickstart.out / "data") in result.stdout
    # All arms score alike here, so the first of them is the one to try.
    adapter = quickstart.out / "sft" / "adapter"
    ask = f"generate --model demo --adapter {adapter} --prompt"
    assert ask in result.stdout
    assert result.stdout.endswith("""'it'"'"'s loud'\n""")


def test_every_command_that_runs_is_shown_as_one_would_type_it(quickstart):
    shown = quickstart().stderr.splitlines()
    for command in quickstart.log.read_text().splitlines():
        assert f"$ .venv/bin/mlx-rsft {command}" in shown


def test_a_second_start_runs_nothing_and_prints_the_same_table(quickstart):
    first = quickstart()
    assert verbs(quickstart.commands()) == ["data", *["eval", "train"] * 2, "eval"]
    second = quickstart()
    assert quickstart.commands() == []
    assert second.stdout.split("minutes")[0] == first.stdout.split("minutes")[0]


def test_ctrl_c_ends_with_130_and_the_next_start_goes_on(quickstart):
    with quickstart.start(TROUBLE="dft:floor") as running:
        manifest = quickstart.out / "dft-floor-0.1" / "manifest.json"
        while running.poll() is None and not manifest.exists():
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 130
        assert (manifest.parent / "saved").exists()
        _, stderr = running.communicate()
    assert "kept: data, score base, train sft, score sft." in stderr
    assert "./scripts/quickstart goes on" in stderr
    assert "Traceback" not in stderr
    quickstart.commands()
    result = quickstart()
    assert result.returncode == 0
    assert verbs(quickstart.commands()) == ["train", "eval"]
    assert "dft-floor-0.1 is now dft-floor-0.1.old" in result.stderr
    old = quickstart.out / "dft-floor-0.1.old" / "manifest.json"
    assert json.loads(old.read_text())["finished"] is None


def test_a_failing_command_ends_it_with_its_message_and_exit_code(quickstart):
    result = quickstart(TROUBLE="eval")
    assert result.returncode == 3
    assert "\nx.jsonl:17 No good. Mend it.\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (quickstart.out / "base.json").exists()
    quickstart.commands()
    assert quickstart().returncode == 0
    assert verbs(quickstart.commands()) == ["eval", "train", "eval", "train", "eval"]


def test_a_run_by_another_command_is_redone_with_what_hangs_on_it(quickstart):
    quickstart()
    journal = quickstart.out / "journal.json"
    journal.write_text(journal.read_text().replace('"sft"', '"dft"'))
    quickstart.commands()
    quickstart()
    train, score = quickstart.commands()
    assert "--objective sft" in train
    assert "--adapter sft/adapter" in score
    assert (quickstart.out / "sft.json.old").exists()
