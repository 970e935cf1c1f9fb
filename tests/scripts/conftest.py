"""A clone of scripts/ whose Python is a stand-in, and the log of what it did.

Making a real environment takes half a minute and the network, so the stand-in makes
empty ones and notes what pip is asked for. All else, shell included, is real.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = "basename bash cat cksum cp dirname grep id ln mkdir readlink rm sed sh sleep"
TOOLS += " sort tr"

STAND_IN = """#!/bin/sh
case "$1 $2" in
  '-m venv')
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages/pip"
    : >"$3/lib/python3.11/site-packages/pip/__main__.py"
    cp "$0" "$3/bin/python"
    for tool in ruff pyright lint-imports; do cp TOOL "$3/bin/$tool"; done
    echo venv >>LOG ;;
  '-m pip')
    echo "pip $*" >>LOG
    [ ! -e LOG.pip-fails ] || exit 1
    [ ! -e LOG.pip-hangs ] || exec sleep 60
    site=${0%/bin/python}/lib/python3.11/site-packages
    [ ! -e "$site/torn-1.dist-info" ] || echo "torn counts as installed" >>LOG
    mkdir -p "$site/mlx_rsft-1.dist-info"
    : >"$site/mlx_rsft-1.dist-info/INSTALLER" ;;
  '-m pytest')
    echo "pytest in $PWD" >>LOG
    exit 1 ;;
  '-m mlx_rsft')
    echo "$*" >>LOG ;;
  *)
    exec REAL -c 'import platform, runpy, sys
PRELUDE
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    runpy.run_path(sys.argv[1], run_name="__main__")' "$@" ;;
esac
"""
FACTS = "sys.version_info = (3, 11, 9); sys._base_executable = {path!r}"


class Clone:
    """A copy of scripts/, a PATH of known tools, and a log of what was done."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.path = folder / "bin"
        self.log = folder / "log"
        for part in ("scripts", ".ci"):
            shutil.copytree(ROOT / part, self.root / part)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.path.mkdir()
        for tool in TOOLS.split():
            # Not a link: what a test puts in its place must never reach the real one.
            real = f'#!/bin/sh\nexec "{shutil.which(tool)}" "$@"\n'
            self.program(tool, real)
        self.program("uname", "#!/bin/sh\necho Linux\n")
        noting = f'#!/bin/sh\necho "${{0##*/}}" >>"{self.log}"\n[ "$1" != format ]\n'
        self.tool = self.program("tool", noting)
        self.add_python("python3")

    def program(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def add_python(self, name: str, prelude: str = "") -> Path:
        text = STAND_IN.replace("REAL", f"'{sys.executable}'")
        text = text.replace("TOOL", f'"{self.tool}"').replace("LOG", f'"{self.log}"')
        facts = FACTS.format(path=str(self.path / name)).replace("'", '"')
        prelude = f"{facts}; {prelude or 'pass'}"
        return self.program(name, text.replace("PRELUDE", prelude))

    def start(self, name="scripts/test", cwd=None, env=None, **options):
        return subprocess.Popen(
            [self.root / name],
            cwd=cwd or self.root,
            env={"PATH": str(self.path), "HOME": str(self.root), **(env or {})},
            text=True,
            **options,
        )

    def run(self, name="scripts/test", cwd=None, user=None, **variables):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(name, cwd, variables, user=user, **pipes) as running:
            stdout, stderr = running.communicate(timeout=60)
        return subprocess.CompletedProcess(name, running.returncode, stdout, stderr)

    def done(self) -> list[str]:
        """What happened since the last look: venv, pip with its extras, tools."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return [re.sub(r"^pip .* --editable \.", "pip ", line) for line in lines]


@pytest.fixture
def clone_in():
    """Makes a clone in a folder of the test's own choice."""
    return Clone


@pytest.fixture
def clone(tmp_path):
    made = Clone(tmp_path.resolve())
    tests = f"pytest in {made.root}"
    made.tests = tests
    return made
