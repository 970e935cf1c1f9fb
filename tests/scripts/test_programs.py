"""What scripts/ and .ci/run do once the environment is there, and how they are written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL_FILES = ["scripts/environment.sh", "scripts/quickstart", "scripts/test"]
SHELL_FILES += ["scripts/check", "scripts/bench", "scripts/roofline", "scripts/faults"]
SHELL_FILES += ["scripts/experiments/run"]
SHELL_FILES += [".ci/run", ".ci/browser"]


@pytest.mark.parametrize("file", SHELL_FILES)
def test_every_shell_here_can_read_the_scripts(file):
    for shell in ("sh", "bash", "dash"):
        if found := shutil.which(shell):
            read = subprocess.run([found, "-n", ROOT / file], check=False)
            assert read.returncode == 0, shell


@pytest.mark.parametrize("file", SHELL_FILES)
def test_nothing_newer_than_bash_3_2_is_written(file):
    newer = r"\[\[|<<<|&>|\|&|\$\{\w+(,,|\^\^)|declare -A|mapfile|pipefail|\bcoproc\b"
    assert not re.search(newer, (ROOT / file).read_text())


def test_quickstart_is_the_pilot_with_its_folder_in_the_clone(clone, tmp_path):
    assert clone.run("scripts/quickstart").returncode == 0
    assert clone.done()[-1] == "-m mlx_rsft pilot --out runs/pilot"
    clone.run("scripts/quickstart", cwd=tmp_path)
    out = clone.root / "runs" / "pilot"
    assert clone.done() == [f"-m mlx_rsft pilot --out {out}"]


def test_ci_runs_the_tests_and_the_check_though_the_tests_fail(clone):
    result = clone.run(".ci/run")
    assert result.returncode == 1
    done = clone.done()
    assert clone.tests in done
    assert done[-4:] == ["ruff", "ruff", "pyright", "lint-imports"]


def test_ci_goes_on_without_a_browser_and_says_so(clone):
    said = clone.run(".ci/run").stderr
    assert "install by hand: chromium fontconfig fonts-noto-cjk" in said
    assert (
        "Without these, tests of the report in a browser are skipped or fail." in said
    )


def test_ci_installs_a_browser_and_letters_where_they_are_missing(clone):
    log = f'#!/bin/sh\necho "apt-get $1 $2" >>"{clone.log}"\n'
    clone.program("apt-get", log)
    clone.program("id", "#!/bin/sh\necho 0\n")
    clone.program("env", '#!/bin/sh\nshift\nexec "$@"\n')
    assert clone.run(".ci/browser").returncode == 0
    assert clone.done() == ["apt-get update ", "apt-get install -y"]
    clone.program("chromium", "#!/bin/sh\n")
    clone.program("fc-list", "#!/bin/sh\necho a font\n")
    assert clone.run(".ci/browser").returncode == 0
    assert clone.done() == []


def test_the_check_runs_every_tool_and_names_those_that_failed(clone):
    result = clone.run("scripts/check")
    assert result.returncode == 1
    assert clone.done()[2:] == ["ruff", "ruff", "pyright", "lint-imports"]
    assert result.stderr.endswith("Failed: ruff format\n")


def test_no_file_names_a_package_index():
    hosts = re.compile(rb"py" rb"pi\.org|python" rb"hosted|anaconda\.org|npm" rb"js\.")
    folders = ["mlx_rsft", "scripts", "configs", "tests", ".ci", ".github"]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in folders:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = [path for path in files if hosts.search(path.read_bytes())]
    assert not [path for path in named if "__pycache__" not in path.parts]
