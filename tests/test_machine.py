import os

import pytest

from mlx_rsft import machine


def test_the_device_record_has_every_fact():
    record = machine.device().as_record()
    assert record["backend"] in ("cpu", "metal", "cuda")
    assert record["memory_bytes"] > 1e9


def test_sleep_is_held_off_by_caffeinate_where_it_exists_and_released(monkeypatch):
    commands = []

    class Holder:
        ended = False

        def terminate(self):
            self.ended = True

        def wait(self):
            assert self.ended

    holder = Holder()

    def start(command):
        commands.append(list(command))
        return holder

    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    command = ["caffeinate", "-i", "-m", "-w", str(os.getpid())]
    with machine.kept_awake(start) as awake:
        assert awake.is_held
        assert not holder.ended
        with awake.let_go():
            assert holder.ended
            assert not awake.is_held
            assert commands == [command]
            holder.ended = False
        assert awake.is_held
        assert commands == [command, command]
    assert holder.ended


def test_without_caffeinate_nothing_is_held(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with machine.kept_awake() as awake:
        assert not awake.is_held
        with awake.let_go():
            assert not awake.is_held


def test_the_wired_limit_is_restored_even_after_an_error(monkeypatch):
    import mlx.core as mx

    limits = [5]

    def set_limit(value):
        limits.append(value)
        return limits[-2]

    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    with pytest.raises(RuntimeError), machine.wired_memory(9):
        raise RuntimeError
    assert limits == [5, 9, 5]
    with machine.wired_memory(0):
        pass
    assert limits == [5, 9, 5]


def test_what_launched_several_processes_is_told_by_what_it_sets(monkeypatch, tmp_path):
    for name in machine.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    assert machine.launched_by() == ""
    hosts = tmp_path / "hosts.json"
    hosts.write_text("")
    monkeypatch.setenv("MLX_HOSTFILE", str(hosts))
    assert machine.launched_by() == "", "mlx.launch -n 1 writes no hosts"
    hosts.write_text('[["127.0.0.1:1"], ["127.0.0.1:2"]]')
    assert machine.launched_by() == "ring"
    monkeypatch.delenv("MLX_HOSTFILE")
    monkeypatch.setenv("PMI_SIZE", "1")
    assert machine.launched_by() == ""
    monkeypatch.setenv("PMI_SIZE", "2")
    assert machine.launched_by() == "mpi"
