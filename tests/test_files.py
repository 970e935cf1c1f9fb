import os

import pytest

from mlx_rsft import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    monkeypatch.setattr(files.os, "fsync", _full_disk)
    with pytest.raises(OSError, match="full"):
        files.write_json(path, {"x": 2})
    assert '"x": 1' in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def _full_disk(_handle):
    raise OSError("full")


def test_a_number_that_json_does_not_know_is_refused_before_anything_is_written(
    tmp_path,
):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_there_complete_or_not_at_all(tmp_path):
    def write_half():
        with files.new_folder(tmp_path / "out") as scratch:
            (scratch / "half").write_text("x")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_replaces_the_old_one_only_at_the_end(tmp_path):
    out = tmp_path / "out"
    for text in ("old", "new"):
        with files.new_folder(out) as scratch:
            (scratch / text).write_text(text)
            assert out.exists() == (text == "new")
    assert [path.name for path in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]


def test_the_cache_folder_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path


def test_a_tree_hash_changes_with_any_python_file(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    before = files.tree_sha256(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert files.tree_sha256(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2")
    assert files.tree_sha256(tmp_path) != before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_is_written_has_the_rights_that_the_users_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "text", "x")
        files.write_text(tmp_path / "secret", "x", mode=files.PRIVATE)
        with files.new_folder(tmp_path / "folder") as scratch:
            (scratch / "inside").touch()
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert rights == {
        "text": 0o666 & ~umask,
        "secret": 0o600,
        "folder": 0o777 & ~umask,
        "inside": 0o666 & ~umask,
    }


def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path, monkeypatch
):
    seen = []
    real = os.fsync

    def look(handle):
        seen.append(os.fstat(handle).st_mode & 0o777)
        real(handle)

    monkeypatch.setattr(files.os, "fsync", look)
    files.write_text(tmp_path / "secret", "x", mode=files.PRIVATE)
    assert seen == [0o600]
