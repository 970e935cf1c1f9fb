import pytest

from mlx_rsft import ranks
from mlx_rsft.cli.main import main
from mlx_rsft.errors import ConfigError, MachineError


@pytest.fixture(autouse=True)
def _connected_anew():
    ranks.here.cache_clear()
    ranks._least_patience.cache_clear()
    yield
    ranks.here.cache_clear()
    ranks._least_patience.cache_clear()


def test_a_process_that_nobody_launched_is_alone_and_exchanges_nothing():
    here = ranks.here()
    assert (here.rank, here.size, here.leads) == (0, 1, True)
    assert here.told(b"said") == b"said"
    assert here.any_of(False, True) == [False, True]


def test_of_fewer_rows_than_ranks_each_computes_all():
    three = ranks.Ranks(2, 3)
    assert three.for_rows(3) is three
    assert three.for_rows(2) is ranks.ALONE


def test_a_backend_that_is_not_for_this_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("NCCL_HOST_IP", "127.0.0.1")
    with pytest.raises(MachineError, match=r"not connected by nccl.*--backend ring"):
        ranks.here()


def test_ranks_that_cannot_be_connected_say_so(monkeypatch, tmp_path):
    hosts = tmp_path / "hosts.json"
    hosts.write_text("no hosts")
    monkeypatch.setenv("MLX_HOSTFILE", str(hosts))
    monkeypatch.setenv("MLX_RANK", "0")
    with pytest.raises(MachineError, match="do not find each other"):
        ranks.here()


def test_a_patience_that_is_no_number_is_refused_before_ranks_connect(monkeypatch):
    monkeypatch.setenv("NCCL_HOST_IP", "")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("MLX_RSFT_PATIENCE", "soon")
    with pytest.raises(ConfigError, match=r"'soon' is no number of seconds"):
        ranks.here()


def test_all_commands_but_train_refuse_to_be_launched(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as end:
        main(["objectives"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "mlx-rsft objectives runs in one process, and several were launched" in told
