import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from mlx_rsft import files
from mlx_rsft.errors import MachineError, ModelError
from mlx_rsft.models.wheels import Packed, Wheel, kept, locate

MODEL = b"GGUF" + bytes(range(256)) * 64


def write_wheel(folder, package, data):
    folder.mkdir(exist_ok=True)
    path = folder / f"{package}-0.1.0-py3-none-any.whl"
    about = f"{package}-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/tiny.gguf", data)
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0",
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nTag: py3-none-any"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def packed(*wheels):
    return Packed(
        "tiny.gguf",
        hashlib.sha256(MODEL).hexdigest(),
        tuple(
            Wheel(
                f"{package}==0.1.0",
                path.name,
                path.stat().st_size,
                files.sha256(path),
                f"{package}/tiny.gguf",
            )
            for path in wheels
            for package in [path.name.partition("-")[0]]
        ),
    )


@pytest.fixture
def wheel(tmp_path):
    return write_wheel(tmp_path / "index", "tinydemo", MODEL)


@pytest.fixture
def tiny(wheel):
    return packed(wheel)


@pytest.fixture
def pieces(tmp_path):
    cuts = {"tinyb": MODEL[:5000], "tinya": MODEL[5000:5001], "tinyc": MODEL[5001:]}
    folder = tmp_path / "index"
    return [write_wheel(folder, name, data) for name, data in cuts.items()]


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
    path = kept(tiny, folder, report=lambda *at: told.append(at))
    assert path == folder / "tiny.gguf"
    assert path.read_bytes() == MODEL
    assert told[-1] == (wheel.stat().st_size, wheel.stat().st_size)
    assert not (folder / wheel.name).exists()


def test_a_file_that_is_there_needs_no_network_and_is_hashed_once(
    tiny, wheel, folder, monkeypatch
):
    path = kept(tiny, folder, ask=lambda _: wheel.as_uri())
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert kept(tiny, folder, ask=no_network) == path


def test_pieces_are_joined_in_the_order_of_the_list(pieces, folder):
    by_name = {f"{path.name.partition('-')[0]}==0.1.0": path for path in pieces}
    told = []
    path = kept(
        packed(*pieces),
        folder,
        ask=lambda requirement: by_name[requirement].as_uri(),
        report=lambda *at: told.append(at),
    )
    assert path.read_bytes() == MODEL
    assert told == sorted(told)
    total_bytes = sum(path.stat().st_size for path in pieces)
    assert told[-1] == (total_bytes, total_bytes)
    assert not list(folder.glob("*.whl"))


def test_pieces_that_arrived_before_a_failure_are_not_fetched_again(pieces, folder):
    asked = []

    def ask(requirement):
        asked.append(requirement)
        if len(asked) == 3:
            raise ModelError("the index is gone")
        return pieces[len(asked) - 1].as_uri()

    with pytest.raises(ModelError, match="the index is gone") as caught:
        kept(packed(*pieces), folder, ask=ask)
    assert "tinyb==0.1.0 tinya==0.1.0 tinyc==0.1.0" in str(caught.value.hint)
    assert not (folder / "tiny.gguf").exists()
    path = kept(packed(*pieces), folder, ask=lambda _: pieces[2].as_uri())
    assert path.read_bytes() == MODEL


@pytest.mark.parametrize("damage", [MODEL[:-1], MODEL[:-1] + b"?"])
def test_a_file_cut_or_changed_afterwards_is_fetched_again(tiny, wheel, folder, damage):
    path = kept(tiny, folder, ask=lambda _: wheel.as_uri())
    path.write_bytes(damage)
    assert kept(tiny, folder, ask=lambda _: wheel.as_uri()) == path
    assert path.read_bytes() == MODEL


def test_the_model_put_there_by_hand_is_taken(tiny, folder):
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(MODEL)
    assert kept(tiny, folder, ask=no_network).read_bytes() == MODEL


def test_the_wheel_put_there_by_hand_is_unpacked(tiny, wheel, folder):
    folder.mkdir(parents=True)
    wheel.replace(folder / wheel.name)
    assert kept(tiny, folder, ask=no_network).read_bytes() == MODEL


def test_a_wrong_wheel_put_there_by_hand_is_named_and_left_alone(tiny, wheel, folder):
    folder.mkdir(parents=True)
    wrong = folder / wheel.name
    wrong.write_bytes(b"not a wheel")
    with pytest.raises(ModelError, match="not the wheel expected; delete it"):
        kept(tiny, folder, ask=no_network)
    assert wrong.exists()


def test_without_a_network_the_error_says_what_to_put_where(tiny, folder, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"?" * len(MODEL))
    with pytest.raises(ModelError) as caught:
        kept(tiny, folder)
    said = str(caught.value)
    assert "tinydemo==0.1.0" in said
    assert str(folder) in said
    assert "No matching distribution" in said
    assert "The tiny.gguf there is not the right one" in said
    assert "by hand" in said


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(MachineError, match=r"no pip to ask.*ensurepip"):
        locate("tinydemo==0.1.0", str(tmp_path / "bare" / "bin" / "python"))


def test_a_cache_that_cannot_be_written_is_the_machines_problem(tiny, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(MachineError, match="MLX_RSFT_CACHE"):
        kept(tiny, tmp_path / "cache" / "demo", ask=no_network)


ONE_OF_TWO = """
import sys, time
from pathlib import Path
from mlx_rsft.models.wheels import Packed, Wheel, kept

def locate(requirement):
    with open(sys.argv[3], "a") as log:
        log.write("asked\\n")
    time.sleep(0.5)
    return sys.argv[4]

print(kept(eval(sys.argv[1]), Path(sys.argv[2]), ask=locate))
"""


def test_of_two_processes_one_fetches_and_both_have_the_file(
    tiny, wheel, folder, tmp_path
):
    log = tmp_path / "log"
    command = [sys.executable, "-c", ONE_OF_TWO, repr(tiny)]
    command += [str(folder), str(log), wheel.as_uri()]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in both]
    assert said == [str(folder / "tiny.gguf")] * 2
    assert Path(said[0]).read_bytes() == MODEL
    assert log.read_text().count("asked") == 1
