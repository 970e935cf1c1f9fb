"""The programs in scripts/ prepare .venv by themselves, or say in one message why not."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest


def test_the_first_start_makes_an_environment_and_the_second_does_nothing(clone):
    clone.run()
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]
    clone.run()
    assert clone.done() == [clone.tests]


def test_programs_work_from_any_folder_and_through_a_link(clone, tmp_path):
    link = tmp_path / "elsewhere" / "link to tests"
    link.parent.mkdir()
    link.symlink_to("../a clone/scripts/test")
    clone.run(link, cwd="/")
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]


def test_a_program_in_a_folder_below_finds_the_same_environment(clone, tmp_path):
    clone.run("scripts/experiments/run", cwd=tmp_path)
    assert clone.done() == ["venv", "pip [cpu]"]
    assert (clone.root / ".venv" / "made-for").exists()


def test_extras_add_up_and_are_installed_once(clone):
    for name in ("test", "check"):
        clone.run(f"scripts/{name}")
    assert "pip [cpu,dev]" in clone.done()
    for name in ("test", "check"):
        clone.run(f"scripts/{name}")
    assert clone.done() == [clone.tests, "ruff", "ruff", "pyright", "lint-imports"]


def test_a_changed_pyproject_is_installed_again(clone):
    clone.run()
    with (clone.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    clone.done()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]


def test_an_installation_that_failed_is_taken_up_again(clone):
    marker = clone.log.with_name("log.pip-fails")
    marker.touch()
    result = clone.run()
    assert result.returncode == 2
    assert "pip could not install" in result.stderr
    marker.unlink()
    clone.done()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]


def test_a_failed_installation_leaves_no_trust_in_what_was_there(clone):
    clone.run()
    marker = clone.log.with_name("log.pip-fails")
    marker.touch()
    clone.run("scripts/check")
    marker.unlink()
    clone.done()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]


def test_a_half_installed_package_does_not_count_as_installed(clone):
    clone.run()
    (clone.root / ".venv/installed").unlink()  # as pip leaves it when it is killed
    site = clone.root / ".venv/lib/python3.11/site-packages"
    (site / "torn-1.dist-info").mkdir()
    clone.done()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]


def break_python(venv):
    (venv / "bin/python").unlink()


def break_creation(venv):
    (venv / "made-for").unlink()


def break_pip(venv):
    shutil.rmtree(venv / "lib/python3.11/site-packages/pip")


@pytest.mark.parametrize("damage", [break_python, break_creation, break_pip])
def test_a_broken_environment_is_made_anew_with_a_word(clone, damage):
    clone.run()
    damage(clone.root / ".venv")
    clone.done()
    assert "Making .venv" in clone.run().stderr
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]


def test_an_environment_that_was_moved_is_made_anew(clone):
    clone.run()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    clone.done()
    assert "made in another folder" in clone.run().stderr
    assert clone.done()[:2] == ["venv", "pip [cpu,test]"]


def test_wiped_packages_are_installed_again(clone):
    clone.run()
    shutil.rmtree(
        clone.root / ".venv/lib/python3.11/site-packages/mlx_rsft-1.dist-info"
    )
    clone.done()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]


def test_a_backend_is_kept_until_another_is_named(clone):
    clone.run(MLX_RSFT_BACKEND="cuda13")
    assert clone.done() == ["venv", "pip [cuda13,test]", clone.tests]
    clone.run()
    assert clone.done() == [clone.tests]
    clone.run(MLX_RSFT_BACKEND="cpu")
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]


def test_an_unknown_backend_is_refused_before_anything_is_made(clone):
    result = clone.run(MLX_RSFT_BACKEND="rocm")
    assert result.returncode == 2
    assert "known on Linux: cpu, cuda13" in result.stderr
    assert not (clone.root / ".venv").exists()


def test_a_mac_needs_no_backend(clone):
    clone.program("uname", "#!/bin/sh\necho Darwin\n")
    clone.run("scripts/quickstart")
    assert clone.done()[:2] == ["venv", "pip "]


REFUSED = {
    "sys.version_info = (3, 9, 6)": "is Python 3.9",
    'sys.modules["ensurepip"] = None': "sudo apt-get install python3.11-venv",
    'sys.platform = "darwin"; platform.machine = lambda: "x86_64"': "under Rosetta",
}


@pytest.mark.parametrize("prelude", REFUSED)
def test_a_python_that_does_not_fit_is_refused_with_what_it_lacks(clone, prelude):
    clone.program("sysctl", "#!/bin/sh\necho 1\n")
    clone.add_python("python3", prelude)
    result = clone.run()
    assert result.returncode == 2
    assert "a Python of 3.11 or newer with its venv module is needed" in result.stderr
    assert REFUSED[prelude] in result.stderr
    assert not (clone.root / ".venv").exists()


def test_a_machine_without_python_is_told_so(clone):
    (clone.path / "python3").unlink()
    result = clone.run()
    assert result.returncode == 2
    assert "none under the name(s) python3" in result.stderr


def test_a_newer_python_is_found_behind_an_old_one(clone):
    clone.add_python("python3", "sys.version_info = (3, 9, 6)")
    newer = clone.add_python("python3.12")
    assert f"({newer})" in clone.run().stderr


def test_the_python_that_is_named_is_taken(clone, tmp_path):
    named = clone.add_python("my python")
    assert f"({named})" in clone.run(PYTHON=str(named)).stderr
    assert "name(s) /no/python" in clone.run(PYTHON="/no/python").stderr


def test_a_folder_of_somebody_else_is_refused(clone_in):
    with tempfile.TemporaryDirectory() as folder:
        clone = clone_in(Path(folder).resolve())
        clone.root.chmod(0o555)
        Path(folder).chmod(0o755)
        result = clone.run(user="nobody" if os.geteuid() == 0 else None)
        clone.root.chmod(0o755)
    assert result.returncode == 2
    assert "cannot be written by" in result.stderr


def test_a_lock_that_cannot_be_made_is_reported_instead_of_tried_forever(clone):
    clone.program("ln", "#!/bin/sh\nexit 1\n")
    assert "cannot be made" in clone.run().stderr
    assert clone.done() == []


def test_the_lock_of_a_dead_program_is_taken_over(clone):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (clone.root / ".venv.lock").symlink_to(str(dead.pid))
    clone.run()
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]
    assert not (clone.root / ".venv.lock").is_symlink()


def test_a_second_program_waits_for_the_first(clone):
    lock = clone.root / ".venv.lock"
    lock.symlink_to(str(os.getpid()))
    release = threading.Timer(1.0, lock.unlink)
    release.start()
    assert "Waiting for process" in clone.run().stderr
    assert not release.is_alive()
    assert clone.done() == ["venv", "pip [cpu,test]", clone.tests]


def test_ctrl_c_during_the_installation_ends_it_and_the_next_start_goes_on(clone):
    hanging = clone.log.with_name("log.pip-hangs")
    hanging.touch()
    with clone.start(stderr=subprocess.PIPE, start_new_session=True) as running:
        while running.poll() is None and "pip [cpu,test]" not in clone.done():
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        message = running.stderr.read()
    assert running.returncode == 130
    assert message.endswith("./scripts/test goes on from there.\n")
    hanging.unlink()
    clone.run()
    assert clone.done() == ["pip [cpu,test]", clone.tests]
