import os
import subprocess
import sys

import numpy as np
import pytest

from mlx_rsft.errors import MachineError
from mlx_rsft.models import trunk_store
from mlx_rsft.models.trunk_store import HEAD, FolderStore, MemoryStore

PLENTY = 1 << 20


def key(number):
    return number.to_bytes(16, "little")


def lines(number, num_tokens=5, width=12):
    return np.random.default_rng(number).integers(
        0, 256, (num_tokens, width), dtype=np.uint8
    )


def filled(folder, numbers, budget=PLENTY):
    store = FolderStore(folder, budget)
    for number in numbers:
        assert store.put(key(number), lines(number))
    return store


def found(store, number):
    row = store.get(key(number))
    return row is not None and np.array_equal(row, lines(number))


@pytest.fixture(params=["memory", "folder"])
def make(request, tmp_path):
    if request.param == "memory":
        return MemoryStore
    return lambda budget: FolderStore(tmp_path, budget)


def test_what_was_put_is_found_and_nothing_else(make):
    store = make(PLENTY)
    for number in range(3):
        assert store.put(key(number), lines(number))
    assert all(found(store, number) for number in (2, 0, 1, 2))
    assert store.get(key(9)) is None


def test_a_store_never_exceeds_its_budget_and_keeps_what_it_has(make):
    store = make(250)
    kept = [number for number in range(9) if store.put(key(number), lines(number))]
    assert 1 < len(kept) < 9
    assert store.num_bytes <= 250
    assert all(found(store, number) for number in kept)


def test_a_later_process_finds_what_an_earlier_one_put(tmp_path):
    filled(tmp_path, range(3)).close()
    later = FolderStore(tmp_path, PLENTY)
    assert all(found(later, number) for number in range(3))


def test_two_writers_at_once_lose_nothing(tmp_path):
    one, two = FolderStore(tmp_path, PLENTY), FolderStore(tmp_path, PLENTY)
    for number in range(6):
        (one if number % 2 else two).put(key(number), lines(number))
    later = FolderStore(tmp_path, PLENTY)
    assert all(found(later, number) for number in range(6))


def test_a_file_cut_anywhere_gives_whole_rows_or_none(tmp_path):
    filled(tmp_path / "whole", range(3)).close()
    (whole,) = (tmp_path / "whole").iterdir()
    content = whole.read_bytes()
    for length in range(len(content)):
        cut = tmp_path / "cut"
        cut.mkdir(exist_ok=True)
        (cut / whole.name).write_bytes(content[:length])
        store = FolderStore(cut, PLENTY)
        complete = length // (HEAD.size + 60)
        for number in range(3):
            there = store.get(key(number)) is not None
            assert there == (number < complete)
            assert not there or found(store, number)
        store.close()


def test_a_file_with_any_byte_changed_gives_right_rows_or_none(tmp_path):
    filled(tmp_path, range(2)).close()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x41
        file.write_bytes(damaged)
        store = FolderStore(tmp_path, PLENTY)
        for number in range(2):
            row = store.get(key(number))
            assert row is None or np.array_equal(row, lines(number)), place
        store.close()


def test_a_head_that_claims_more_than_there_is_asks_for_no_memory(tmp_path):
    head = HEAD.pack(key(0), 2**32 - 1, 2**32 - 1, 0)
    (tmp_path / "a.rows").write_bytes(head + bytes(500))
    assert FolderStore(tmp_path, PLENTY).get(key(0)) is None


def test_a_head_that_claims_another_shape_is_not_believed(tmp_path):
    filled(tmp_path, [0]).close()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    mark, tokens, width, checksum = HEAD.unpack(content[: HEAD.size])
    file.write_bytes(HEAD.pack(mark, width, tokens, checksum) + content[HEAD.size :])
    assert FolderStore(tmp_path, PLENTY).get(key(0)) is None


def test_a_file_that_is_cut_while_in_use_gives_no_wrong_row(tmp_path):
    store = filled(tmp_path, [0])
    (file,) = tmp_path.iterdir()
    os.truncate(file, HEAD.size + 30)
    assert store.get(key(0)) is None


def test_a_damaged_row_is_put_anew(tmp_path):
    filled(tmp_path, [0]).close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    store = FolderStore(tmp_path, PLENTY)
    assert store.get(key(0)) is None
    assert store.put(key(0), lines(0))
    assert found(store, 0)
    store.close()
    for newest in sorted(tmp_path.iterdir()):
        os.utime(newest, (1 << 32, 1 << 32))
        assert found(FolderStore(tmp_path, PLENTY), 0)
        os.utime(newest, (1000, 1000))


def test_a_process_that_is_killed_leaves_only_whole_rows(tmp_path):
    program = (
        "import os, sys, pathlib, numpy as np\n"
        "from mlx_rsft.models.trunk_store import FolderStore\n"
        "store = FolderStore(pathlib.Path(sys.argv[1]), 1 << 30)\n"
        "print('ready', flush=True)\n"
        "number = 0\n"
        "while True:\n"
        "    rows = np.full((300, 512), number % 251, np.uint8)\n"
        "    store.put(number.to_bytes(16, 'little'), rows)\n"
        "    number += 1\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"ready\n"
        while not any(path.stat().st_size > 1 << 20 for path in tmp_path.iterdir()):
            assert child.poll() is None
        child.kill()
    store = FolderStore(tmp_path, 1 << 30)
    number = 0
    while (row := store.get(key(number))) is not None:
        assert (row == number % 251).all()
        number += 1
    assert number > 2


def test_old_files_make_room_but_not_those_in_use(tmp_path):
    for number in range(4):
        filled(tmp_path, [number]).close()
    files = {found_in(tmp_path, number): number for number in range(4)}
    for file, number in files.items():
        os.utime(file, (1000 + number, 1000 + number))
    store = FolderStore(tmp_path, 4 * (HEAD.size + 60))
    assert found(store, 0)
    assert store.put(key(10), lines(10))
    assert store.num_bytes <= 4 * (HEAD.size + 60)
    left = {files[file] for file in tmp_path.iterdir() if file in files}
    assert left == {0, 2, 3}
    assert found(store, 0)
    assert store.get(key(1)) is None


def found_in(folder, number):
    mark = key(number)
    return next(path for path in folder.iterdir() if path.read_bytes()[:16] == mark)


def test_a_row_that_cannot_fit_costs_nobody_a_row(tmp_path):
    filled(tmp_path, [0]).close()
    store = FolderStore(tmp_path, 2 * (HEAD.size + 60))
    assert not store.put(key(1), lines(1, num_tokens=100))
    assert found(store, 0)


def test_a_full_disk_refuses_rows_and_harms_none(tmp_path, monkeypatch):
    store = filled(tmp_path, [0])
    real = os.pwrite

    def full(handle, record, offset):
        if len(record) > 20:
            return real(handle, record[:20], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trunk_store.os, "pwrite", full)
    assert not store.put(key(1), lines(1))
    monkeypatch.undo()
    assert found(store, 0)
    later = FolderStore(tmp_path, PLENTY)
    assert found(later, 0)
    assert later.num_bytes == HEAD.size + 60


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        FolderStore(tmp_path / "file" / "states", PLENTY)
