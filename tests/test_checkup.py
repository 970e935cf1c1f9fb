import dataclasses
from collections import namedtuple

import pytest

from mlx_rsft import checkup, machine

GIB = checkup.GIB
MAC = machine.Device(
    "macOS-15.1-arm64-arm-64bit",
    *("arm64", "3.12.1", "metal", "Apple M2", "system"),
    *(8, 16 * GIB, 11 * GIB),
)
LINUX = dataclasses.replace(
    MAC,
    system="Linux",
    architecture="x86_64",
    backend="cpu",
    blas="openblas",
    working_set_bytes=0,
)


def _levels(findings):
    return {finding.topic: finding.level for finding in findings}


def test_a_python_under_rosetta_is_a_problem_with_a_remedy():
    found = checkup.python("Darwin", "x86_64", "3.12")
    assert found.level == "problem"
    assert "Rosetta" in found.message
    assert "macos-aarch64" in found.remedy
    assert checkup.python("Darwin", "arm64", "3.12").level == "fine"
    assert checkup.python("Linux", "x86_64", "3.12").level == "fine"


def test_a_mac_is_told_how_to_keep_more_resident_and_never_all_of_it():
    memory = next(f for f in checkup.device(MAC) if f.topic == "memory")
    assert memory.level == "note"
    assert memory.remedy.endswith(f"sysctl iogpu.wired_limit_mb={12 * 1024}")
    full = dataclasses.replace(MAC, working_set_bytes=12 * GIB)
    assert _levels(checkup.device(full))["memory"] == "fine"


def test_the_slow_blas_is_a_problem_unless_it_was_chosen(monkeypatch):
    slow = dataclasses.replace(LINUX, blas="reference")
    monkeypatch.delenv("MLX_RSFT_BLAS", raising=False)
    assert _levels(checkup.device(LINUX))["BLAS"] == "fine"
    assert _levels(checkup.device(slow))["BLAS"] == "problem"
    monkeypatch.setenv("MLX_RSFT_BLAS", "off")
    assert _levels(checkup.device(slow))["BLAS"] == "note"
    cuda = dataclasses.replace(slow, backend="cuda")
    assert _levels(checkup.device(cuda))["BLAS"] == "fine"


def test_the_versions_that_are_called_tested_are_those_these_tests_run_with():
    installed = checkup.installed()
    assert set(_levels(checkup.versions(installed)).values()) == {"fine"}, installed


def test_other_versions_missing_ones_and_two_backends_are_told_apart():
    installed = {**checkup.TESTED, "mlx": "0.320.1", "mlx-cpu": "1", "mlx-cuda-13": "1"}
    del installed["gguf"]
    levels = _levels(checkup.versions(installed))
    assert levels["mlx"] == "note"
    assert levels["gguf"] == "problem"
    assert levels["backends"] == "problem"
    assert levels["numpy"] == "fine"


def test_a_folder_is_measured_also_where_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert ", 0.00 GiB;" in checkup.folder("x", tmp_path / "no" / "such").message
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda _: usage(GIB))
    found = checkup.folder("x", tmp_path)
    assert found.level == "note"
    assert "1 GiB free" in found.message


@pytest.mark.parametrize("level", ["fine", "note", "problem"])
def test_a_finding_is_a_record(level):
    assert checkup.Finding(level, "a", "b").as_record() == {
        "level": level,
        "topic": "a",
        "message": "b",
        "remedy": "",
    }
