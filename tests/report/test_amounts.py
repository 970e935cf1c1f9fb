import pytest

from mlx_rsft.report import amounts
from mlx_rsft.report.words import Words

SAY = Words("en")


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.9375, "fraction", "93.8"),
        (0.0, "fraction", "0.0"),
        (1.0, "fraction", "100.0"),
        (1.23456, "nats", "1.235"),
        (12.345, "nats", "12.3"),
        (-0.5, "nats", "\N{MINUS SIGN}0.500"),
        (0.0, "", "0.000"),
        (0.00001, "", "1.00e\N{MINUS SIGN}05"),
        (12345678.0, "", "1.23e+07"),
        (None, "", "–"),
    ],
)
def test_a_number_is_rounded_as_far_as_it_means_something(value, unit, shown):
    assert amounts.number(value, unit) == shown


def test_a_difference_of_shares_is_points_and_has_its_sign():
    assert amounts.in_points(SAY, 0.0625, "fraction") == "+6.2\N{NO-BREAK SPACE}points"
    assert amounts.signed(-0.0625, "fraction") == "\N{MINUS SIGN}6.2"
    assert amounts.signed(0.0, "fraction") == "0.0"


def test_a_unit_without_a_word_keeps_its_own():
    assert amounts.with_unit(SAY, 2.0, "furlongs") == "2.000 furlongs"
    assert amounts.with_unit(SAY, 1.1, "ratio") == "1.100"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(3.21, "3.2 s"), (89.9, "89.9 s"), (90, "1 min 30 s"), (7260, "2 h 1 min")],
)
def test_a_time_is_said_as_people_say_it(seconds, shown):
    assert amounts.seconds(SAY, seconds) == shown


def test_what_is_unknown_is_a_dash_everywhere():
    for show in (amounts.memory, amounts.energy, amounts.count, amounts.p_value):
        assert show(None) == amounts.UNKNOWN
    assert amounts.seconds(SAY, None) == amounts.UNKNOWN
    assert amounts.times(3.0, None) == amounts.times(3.0, 0.0) == amounts.UNKNOWN
    assert amounts.interval(0.1, None) == ""


def test_amounts_have_the_units_they_are_known_in():
    assert amounts.memory(3 << 29) == "1.50 GiB"
    assert amounts.memory(5 << 20) == "5 MiB"
    assert amounts.energy(7200.0) == "2.00 Wh"
    assert amounts.p_value(0.0004) == "<\N{NO-BREAK SPACE}0.001"
    assert amounts.count(138240) == "138,240"
    assert amounts.times(3.06, 3.0) == "1.02×"
