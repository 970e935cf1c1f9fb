"""What pmset and Linux say, replayed; the words are those of real machines."""

import pytest

from mlx_rsft import power
from mlx_rsft.power import Power

BATTERY = (
    "Now drawing from 'Battery Power'\n"
    " -InternalBattery-0 (id=4653155)\t{charge}%; discharging; 4:32 remaining "
    "present: true\n"
)
MAINS = (
    "Now drawing from 'AC Power'\n"
    " -InternalBattery-0 (id=4653155)\t7%; AC attached; not charging present: true\n"
)
DESKTOP = "Now drawing from 'AC Power'\n"
COOL = (
    "Note: No thermal warning level has been recorded\n"
    "Note: No performance warning level has been recorded\n"
    "2026-08-20 05:08:37 -0700 CPU Power notify\n"
    "\tCPU_Scheduler_Limit \t= 100\n\tCPU_Available_CPUs \t= 12\n"
    "\tCPU_Speed_Limit \t= 100\n"
)


def _now(tmp_path, batt="", therm=""):
    said = {"batt": batt, "therm": therm}
    return power.now(lambda command: said[command[-1]], tmp_path)


@pytest.mark.parametrize("said", [MAINS, DESKTOP, "", "pmset: error"])
def test_a_mac_that_does_not_live_on_its_battery_has_no_reason_to_rest(tmp_path, said):
    found = _now(tmp_path, said, COOL)
    assert found == Power()
    assert not found.why_rest(100)


def test_a_battery_below_the_floor_is_a_reason_to_rest_and_above_it_is_none(tmp_path):
    found = _now(tmp_path, BATTERY.format(charge=19), COOL)
    assert found.battery == 19
    assert found.why_rest(20) == "the battery is at 19 %, below 20 %"
    assert not found.why_rest(19)
    assert not found.why_rest(0)
    assert _now(tmp_path, BATTERY.format(charge=100)).battery == 100


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Thermal Warning Level = 5\n", "warns of heat, level 5"),
        ("2026-08-20 05:08:37 -0700 \nThermal Warning Level = 100\n", "level 100"),
        ("\tCPU_Speed_Limit \t= 31\n", "at 31 % of its speed"),
        ("Thermal Warning Level = 0\n", ""),
        ("Thermal Warning Level = 255\n", ""),
        ("\tCPU_Speed_Limit \t= 80\n", ""),
        (COOL, ""),
        ("", ""),
    ],
)
def test_a_warning_of_heat_is_a_reason_and_mere_throttling_is_none(tmp_path, said, why):
    found = _now(tmp_path, DESKTOP, said).why_rest(0)
    assert why in found
    assert bool(found) == bool(why)


def _supply(folder, name, **told):
    (folder / name).mkdir()
    for file, text in told.items():
        (folder / name / file).write_text(f"{text}\n")


def test_linux_shows_its_batteries_as_files_and_those_of_mice_do_not_count(tmp_path):
    _supply(tmp_path, "AC", type="Mains", online=0)
    _supply(tmp_path, "hidpp", type="Battery", scope="Device", capacity=1)
    assert _now(tmp_path).battery is None
    _supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity=10)
    _supply(tmp_path, "BAT1", type="Battery", status="Not charging", capacity=90)
    assert _now(tmp_path).battery == 50
    (tmp_path / "BAT0" / "status").write_text("Charging\n")
    assert _now(tmp_path).battery is None
    (tmp_path / "BAT0" / "status").write_text("Discharging\n")
    (tmp_path / "BAT0" / "capacity").write_text("\n")
    (tmp_path / "BAT1" / "capacity").unlink()
    assert _now(tmp_path).battery is None


def test_a_program_that_is_not_there_or_never_answers_says_nothing(monkeypatch):
    assert power._ask(["no-such-program-here"]) == ""
    monkeypatch.setattr(power, "PATIENCE_S", 0.05)
    assert power._ask(["sleep", "5"]) == ""
    assert power._ask(["echo", "a"]) == "a\n"


def test_this_machine_can_be_asked():
    assert isinstance(power.now(), Power)
