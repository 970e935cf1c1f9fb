from mlx_rsft.energy import Meter


def _counter(folder, name, microjoules):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        _counter(tmp_path, name, 5_000_000)
    meter = Meter(tmp_path)
    _counter(tmp_path, "intel-rapl:0", 7_500_000)
    _counter(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert meter.joules() == 2.5


def test_a_machine_that_does_not_tell_is_unknown(tmp_path):
    assert Meter(tmp_path).joules() is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert Meter(tmp_path).joules() is None


def test_a_counter_that_began_anew_is_unknown(tmp_path):
    _counter(tmp_path, "intel-rapl:0", 9_000_000)
    meter = Meter(tmp_path)
    _counter(tmp_path, "intel-rapl:0", 1_000)
    assert meter.joules() is None
